"""One connection: uvicorn's, with bounds of time and size, which uvicorn lacks.

A request must arrive whole within `request_seconds`, with a head and a body of bounded size; what
does not is refused with a 4xx that says why, behind the answers to the requests before it.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.metrics import Metrics
from serving.settings import Settings
from serving.wire import REASONS, OneWrite, Refused, refusal_bytes, without_upgrade

LARGEST_HEAD_BYTES = 16 * 1024
MOST_HEADERS = 100
# After a refusal: how long what the client still sends is read and thrown away. Closing at once
# would reset the connection, and the client might never read why.
LINGER_SECONDS = 2.0
# A connection that says nothing for so long while the service ends is closed.
SILENCE_SECONDS = 1.0


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
        self._head_bytes = self._body_bytes = 0
        self._between = True  # nothing of the next request has arrived
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
        if self._between:
            self._between = False
            if b"pgrade:" in data:
                data = without_upgrade(data)
        if self.since is None:
            self.since = self.quiet_since
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, httptools.HttpParserError | UnicodeDecodeError):  # the URL
                cause = Refused(400, "this is no valid HTTP request")
            if not isinstance(cause, Refused):
                raise
            self._refuse(cause)
        except httptools.HttpParserError:
            self._refuse(Refused(400, "this is no valid HTTP request"))
        except httptools.HttpParserUpgrade:
            # Nothing here speaks another protocol: the request is answered as HTTP, and the last.
            if self.cycle is not None:
                self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._body_bytes = 0
        self._own_cycle = None
        # Also for one that begins in the middle of what arrived: its time runs, and what comes
        # next is its own, not the beginning of another.
        self._between = False
        if self.since is None:
            self.since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._own_cycle is None:  # else a trailer behind the body, which is no header
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
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            raise Refused(400, "the target of a request needs a path, like /predict")
        super().on_headers_complete()
        self._open_cycles += 1
        self._own_cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)  # the application takes pieces away from `cycle.body`
        if self._body_bytes > self.settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(413, f"a body may have {self.settings.max_body_bytes} bytes")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.since = None
        self._between = True

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
            if own.response_complete:  # it did not wait, and has answered
                self.transport.close()
                return
            own.disconnected = True
            own.message_event.set()
            self._open_cycles -= 1
            waiting = [entry for entry in self.pipeline if entry[0] is own]
            for entry in waiting:
                self.pipeline.remove(entry)
            if own.response_started:
                self.transport.close()
                return
        if self._open_cycles == 0:
            self._say_refusal()

    def _say_refusal(self) -> None:
        assert self._refusal is not None
        if self._closing_since is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.transport.write(refusal_bytes(self._refusal))
        self._closing_since = self.loop.time()
        self.flow.resume_reading()
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
