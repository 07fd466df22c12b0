"""uvicorn's server, with patience for its own clients.

uvicorn ends a connection that is idle at the moment of SIGTERM, although its client may be sending
already: 56 of 64 saturated connections were cut (docs/decisions.md). Here SIGTERM means: not ready;
whatever is in flight or still arrives is answered, with `Connection: close`; connections that stay
silent are closed after a second; then exit 0.
"""

import asyncio
import logging
import os
import socket
from typing import Any

import uvicorn

from serving.connection import Protocol
from serving.settings import Settings

log = logging.getLogger(__name__)


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
