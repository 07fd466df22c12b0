"""python -m serving: settings from the environment, then uvicorn."""

import logging

import uvicorn

from arithmetic.errors import reported
from serving.app import create_app
from serving.settings import from_environment


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with reported():
        settings = from_environment()
    # The access log costs a quarter of the throughput.
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, access_log=False)


if __name__ == "__main__":
    main()
