"""The service on a real socket, for clients that speak to nothing else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from arithmetic import bundle
from registry.pull import Pulled
from serving.__main__ import listen
from serving.app import create_app
from serving.settings import Settings
from tests.folder_registry import Answers

ROOT = Path(__file__).resolve().parents[1]
NAME, VERSION = "arithmetic-lm", "7"


@contextmanager
def running(folder: Path, scratch: Path) -> Iterator[str]:
    """Serve a bundle on this disk, as version 7; yields `host:port`."""
    settings = Settings(mlflow_tracking_uri="http://127.0.0.1:1", model_cache=scratch)
    pulled = Pulled(NAME, VERSION, folder, bundle.digest(folder))
    app = create_app(settings, Answers(lambda *_: pulled))
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            for _ in range(300):
                if server.started:
                    break
                time.sleep(0.05)
            assert server.started, "the service did not start"
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
