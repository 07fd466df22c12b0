"""python -m serving: settings from the environment, then uvicorn."""

import logging
import socket

import uvicorn

from arithmetic.errors import reported
from serving.app import create_app
from serving.settings import InvalidSettings, from_environment


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with reported():
        settings = from_environment()
        # Taken before anything is loaded, so that a busy port is the first thing that is said.
        listening = listen(settings.host, settings.port)
    # The access log costs a quarter of the throughput.
    config = uvicorn.Config(create_app(settings), access_log=False)
    print(f"serving on http://{settings.host}:{settings.port}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises InvalidSettings if the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidSettings(
            f"cannot listen on {host}:{port} ({error.strerror}); set HOST and PORT to an address "
            "that is free"
        ) from error


if __name__ == "__main__":
    main()
