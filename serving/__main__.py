"""Serve a model until SIGTERM, and shut down without cutting a request.

    python -m serving

uvicorn closes connections that are idle at the moment of SIGTERM, although their clients may be
sending already: it cut 56 of 64 saturated ones. Here SIGTERM means: not ready; requests in flight
and those that still arrive are answered with `Connection: close`, which empties the connections in
use; then uvicorn closes the idle ones and waits for the others. The exit status is 0.
"""

import asyncio
import logging
import resource
import signal
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

from arithmetic.errors import cli_errors
from serving.app import create_app
from serving.request_log import setup_logging
from serving.settings import InvalidSettingsError, Settings, load_settings

log = logging.getLogger("serving")

MAX_OPEN_FILES = 65_536
IDLE_SECONDS = 1.0  # for clients that are about to send on a connection that is open already
TICK_SECONDS = 0.02


class Server(uvicorn.Server):
    """Drain before uvicorn's shutdown."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what arrives, then shut down; the grace period bounds the wait for the rest."""
        log.info("shutting down with %d connections", len(self.server_state.connections))
        app: Any = self.config.app
        app.state.manager.is_draining = True  # RequestMiddleware adds `Connection: close`
        await asyncio.sleep(app.state.settings.drain_seconds)
        for server in self.servers:
            server.close()
        waited = 0.0
        while self.server_state.connections and waited < IDLE_SECONDS and not self.force_exit:
            await asyncio.sleep(TICK_SECONDS)
            waited += TICK_SECONDS
        await super().shutdown(sockets)
        log.info("stopped")


def make_server(app: FastAPI, settings: Settings) -> Server:
    """Return the server of an application."""
    grace = max(1, int(settings.grace_seconds - settings.drain_seconds - IDLE_SECONDS))
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        access_log=False,  # costs a quarter of the throughput; see request_log.py
        log_config=None,
        server_header=False,
        root_path=settings.root_path,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=grace,
    )
    return Server(config)


def main() -> None:
    """Run the service until SIGTERM or SIGINT."""
    # uvicorn raises a signal again after its shutdown: a requested end is a success. As PID 1,
    # the process would ignore SIGTERM without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with cli_errors():
        settings = load_settings()
        setup_logging(settings.log_format)
        raise_file_limit()
        app = create_app(settings)
        listening = listen(settings.host, settings.port)
        log.info("serving on http://%s:%d", settings.host, settings.port)
        make_server(app, settings).run(sockets=[listening])


def raise_file_limit() -> None:
    """Allow as many open connections as the system does: the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise InvalidSettingsError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not an address"
        raise InvalidSettingsError(
            f"cannot listen on {host}:{port}: {reason}", "set HOST and PORT to a free address"
        ) from error


if __name__ == "__main__":
    main()
