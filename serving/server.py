"""uvicorn with two things that it lacks: patience with its own clients, none with slow ones.

uvicorn ends a connection that is idle at the moment of SIGTERM, although its client may be sending
already: 0 to 64 of 64 saturated connections were cut (facts.md). Here SIGTERM means: not ready;
whatever is in flight or still arrives is answered, with `Connection: close`; connections that stay
silent are closed after a second; then exit 0.

And a request must arrive whole within `request_seconds`, with a head and a body of bounded size.
uvicorn bounds none of these.
"""

import asyncio
import json
import logging
import os
import socket
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.metrics import Metrics
from serving.settings import Settings

log = logging.getLogger(__name__)

LARGEST_HEAD_BYTES = 16 * 1024
MOST_HEADERS = 100
# After a refusal: how long what the client still sends is read and thrown away. Closing at once
# would reset the connection, and the client might never read why.
LINGER_SECONDS = 2.0
# A connection that says nothing for so long while the service ends is closed.
SILENCE_SECONDS = 1.0


# What /metrics calls it.
REASONS = {
    400: "no_http",
    408: "too_slow",
    413: "body_too_large",
    431: "head_too_large",
    503: "too_many_connections",
}


class Refused(Exception):
    """A request that is not even parsed to its end."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


class OneWrite:
    """A transport that sends the head of a response together with the first piece of its body.

    Two writes are two system calls and two packets, and wake the client twice.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Protocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        since: when the request began that has not arrived whole; None between requests.
        quiet_since: when the last byte came.
    """

    settings: Settings
    metrics: Metrics
    draining = False  # set on the class of one server: all its connections end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since: float | None = self.loop.time()
        self.quiet_since = self.since
        self.blocked_since: float | None = None
        self._head_bytes = 0
        self._open_cycles = 0
        self._own_cycle: RequestResponseCycle | None = None
        self._refusal: Refused | None = None
        self._closing_since: float | None = None
        if len(self.connections) > self.settings.max_connections:
            self._refuse(Refused(503, "too many connections; come back in a second"))

    # What arrives

    def data_received(self, data: bytes) -> None:
        self.quiet_since = self.loop.time()
        if self._refusal is not None:
            return
        if self.since is None:
            self.since = self.quiet_since
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refused):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError:
            self._refuse(Refused(400, "this is no valid HTTP request"))
        except httptools.HttpParserUpgrade:
            # Nothing here speaks another protocol: the request is answered as HTTP, and the last.
            if self.cycle is not None:
                self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._own_cycle = None

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > LARGEST_HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            raise Refused(
                431,
                f"the head of a request may have {LARGEST_HEAD_BYTES} bytes and "
                f"{MOST_HEADERS} headers",
            )

    def on_headers_complete(self) -> None:
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self.settings.max_body_bytes:
                raise self._too_large()
        super().on_headers_complete()
        self._open_cycles += 1
        self._own_cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if len(self.cycle.body) > self.settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(413, f"a body may have {self.settings.max_body_bytes} bytes")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.since = None

    # What goes out

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.draining and not self.pipeline:
            cycle.keep_alive = False
        if cycle.scope["method"] != "HEAD" and not cycle.waiting_for_100_continue:
            cycle.transport = OneWrite(cycle.transport)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._open_cycles -= 1
        super().on_response_complete()
        if self._refusal is not None and self._open_cycles == 0:
            self._say_refusal()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.blocked_since = None

    def _refuse(self, refusal: Refused) -> None:
        """Answer with a 4xx, behind the answers to earlier requests of this connection."""
        self._refusal = refusal
        self.metrics.refused.labels(REASONS[refusal.status]).inc()
        own = self._own_cycle
        if own is not None and self.since is not None:  # its application waits for the body
            own.disconnected = True
            own.message_event.set()
            self._open_cycles -= 1
            waiting = [entry for entry in self.pipeline if entry[0] is own]
            for entry in waiting:
                self.pipeline.remove(entry)
            if own.response_started and not own.response_complete:
                self.transport.close()
                return
        if self._open_cycles == 0:
            self._say_refusal()

    def _say_refusal(self) -> None:
        assert self._refusal is not None
        if self._closing_since is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        status = self._refusal.status
        body = json.dumps({"detail": str(self._refusal)}).encode()
        head = [
            STATUS_LINE[status],
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"retry-after: 1\r\n" if status == 503 else b"",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join(head) + body)
        self._closing_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # What time ends

    def sweep(self, now: float) -> None:
        """Called every second: ends what takes too long."""
        limit = self.settings.request_seconds
        if self._closing_since is not None:
            if now - self._closing_since > LINGER_SECONDS:
                self.transport.abort()
        elif self.blocked_since is not None:
            if now - self.blocked_since > limit:  # the client does not read its answers
                self.transport.abort()
        elif self.since is not None and now - self.since > limit and self._refusal is None:
            if self.cycle is None and not self._head_bytes:
                self.transport.close()  # connected, and never asked anything
            else:
                self._refuse(Refused(408, f"a request must arrive within {limit:g} s"))

    def drain(self, now: float) -> None:
        """Called often while the service ends: no further request after those that are here."""
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.pipeline:
                self.cycle.keep_alive = False
        elif self._closing_since is None and now - self.quiet_since > SILENCE_SECONDS:
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, with sweeps while it runs and patience when it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        protocol: type[Protocol],
        settings: Settings,
        state: "State",
        parent: int | None = None,
    ):
        super().__init__(config)
        self._parent = parent
        self._protocol = protocol
        self._settings = settings
        self._state = state

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._each_connection(Protocol.sweep)
            if self._parent is not None and os.getppid() != self._parent:
                log.error("the parent is gone")
                self.should_exit = True
        return await super().on_tick(counter)

    def _each_connection(self, action: Any) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            action(connection, now)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end; whatever is left when the grace period ends is cut, and said."""
        log.info("ending: no longer ready, %d connections", len(self.server_state.connections))
        self._state.draining = True
        self._protocol.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.grace_seconds
        closing = loop.time() + min(self._settings.drain_seconds, self._settings.grace_seconds)
        while not self.force_exit and loop.time() < end:
            if self.servers and loop.time() >= closing:
                for server in self.servers:
                    server.close()
                self.servers = []
            if not self.servers and not self.server_state.connections:
                break
            self._each_connection(Protocol.drain)
            await asyncio.sleep(0.02)
        if self.server_state.connections:
            log.error(
                "%d connections are cut: the grace period of %g s is over",
                len(self.server_state.connections),
                self._settings.grace_seconds,
            )
            self._each_connection(lambda connection, _: connection.transport.abort())
        for task in list(self.server_state.tasks):
            task.cancel()
        for sock in sockets or []:
            sock.close()
        await self.lifespan.shutdown()
        # uvicorn would raise the signal again and die of it; this end was asked for: a success.
        self._captured_signals.clear()
        log.info("ended")


class State:
    """What the server knows and the application says: see /readyz."""

    draining = False


def make_server(app: Any, settings: Settings, state: State, parent: int | None = None) -> Server:
    """The server of one process; a worker ends when its parent is gone."""
    protocol = type("ServiceProtocol", (Protocol,), {"settings": settings, "metrics": app.metrics})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        access_log=False,  # costs a quarter of the throughput; see request_log.py
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=settings.keep_alive_seconds,
    )
    return Server(config, protocol, settings, state, parent)
