"""python -m serving: settings from the environment, then the server."""

import logging
import os
import resource
import signal
import socket
import sys

from arithmetic.errors import reported
from serving.app import create_app
from serving.request_log import set_up
from serving.server import make_server
from serving.settings import InvalidSettings, Settings, from_environment
from serving.watch import Registry
from serving.workers import inherited, run_workers

log = logging.getLogger(__name__)

# The registry's connection, bundles, logs, what libraries open.
FILES_BESIDE_CONNECTIONS = 128


def main() -> None:
    # Told to end before there is anything to end; as PID 1 the kernel would not even say so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with reported():
        serve(from_environment())


def serve(settings: Settings, registry: Registry | None = None) -> None:
    """Serve until SIGTERM or SIGINT; raises InvalidSettings before anything is loaded."""
    set_up(settings.log_format)
    ours = inherited()
    if ours is not None:
        app = create_app(settings, registry, ours.shared / "rates")
        server = make_server(app, settings, app.server_state, ours.parent)
        server.run(sockets=[ours.listening])
        return
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        raise InvalidSettings(
            "PROMETHEUS_MULTIPROC_DIR is set, which the service does itself for its workers; unset "
            "it, and set WORKERS"
        )
    allow_connections(settings.max_connections)
    app = create_app(settings, registry)
    # Taken before anything is loaded, so that a busy port is the first thing that is said.
    listening = listen(settings.host, settings.port)
    print(f"serving on http://{settings.host}:{settings.port}", flush=True)
    if settings.workers > 1:
        del app  # it has shown that the settings are right
        run_workers(settings, listening)
    else:
        make_server(app, settings, app.server_state).run(sockets=[listening])


def allow_connections(count: int) -> None:
    """Let this process and its workers have so many connections open, as far as the system does."""
    wanted = count + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        log.warning(
            "this process may open %d files, fewer than MAX_CONNECTIONS (%d) need: raise its hard "
            "limit (ulimit -Hn), or lower MAX_CONNECTIONS",
            possible,
            count,
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises InvalidSettings if the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, ValueError, TypeError) as error:  # UnicodeError, for a name that is none
        reason = getattr(error, "strerror", None) or "this is no address"
        raise InvalidSettings(
            f"cannot listen on {host}:{port} ({reason}); set HOST and PORT to an address "
            "that is free"
        ) from error


if __name__ == "__main__":
    main()
