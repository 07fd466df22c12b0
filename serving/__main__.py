"""Serve a model until SIGTERM.

    python -m serving

Settings are environment variables (`serving.settings`); SIGTERM drains and exits with status 0.
"""

import logging
import resource
import signal
import socket
import sys

from arithmetic.errors import cli_errors
from serving.app import create_app
from serving.request_log import setup_logging
from serving.server import make_server
from serving.settings import InvalidSettingsError, load_settings

MAX_OPEN_FILES = 65_536


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
        logging.getLogger("serving").info("serving on http://%s:%d", settings.host, settings.port)
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
