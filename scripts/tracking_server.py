"""A real `mlflow server` for as long as a `with` block lasts.

The service cannot open SQLite: it talks to a server. On one machine that is a server over the store
in the repository, which this module starts and ends.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from arithmetic.errors import Problem

START_SECONDS = 90.0
STOP_SECONDS = 10.0


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on; raises Problem if `host` is not this machine's."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise Problem(f"cannot listen on {host} ({error.strerror})") from error
        return int(probe.getsockname()[1])


def usual_port(host: str, root: Path) -> int:
    """The same port for the same folder whenever it is free: what a service notes for after a
    restart, it notes by the server's address. Raises as `free_port`."""
    port = 20_000 + int(hashlib.sha256(str(root.resolve()).encode()).hexdigest(), 16) % 10_000
    with socket.socket() as probe:
        # As the server itself does; what is left of its last connections is no reason to move.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return free_port(host)
    return port


@contextmanager
def tracking_server(
    root: Path,
    host: str = "127.0.0.1",
    known_as: Sequence[str] = (),
    port: int | None = None,
    database: str | None = None,
    app: str | None = None,
) -> Iterator[str]:
    """Serve a store for as long as the block lasts; yields `http://host:port`.

    Args:
        root: the folder with the store, `mlflow.db` and `mlartifacts`.
        host: an address of this machine; loopback unless a container has to reach it.
        known_as: further host names by which clients call it (the server checks the Host header).
        port: where to listen; a free one if left out.
        database: the URI of another database than `root/mlflow.db`.
        app: `basic-auth` for a server that asks who asks (it needs flask-wtf, and
            MLFLOW_AUTH_ADMIN_PASSWORD in the environment).

    Raises:
        Problem: the server does not start; the sentence ends with its last words.
    """
    url, server = start(root, host, known_as, port, database, app)
    try:
        yield url
    finally:
        end(server)


def start(
    root: Path,
    host: str = "127.0.0.1",
    known_as: Sequence[str] = (),
    port: int | None = None,
    database: str | None = None,
    app: str | None = None,
) -> "tuple[str, subprocess.Popen[bytes]]":
    """As `tracking_server`, for a caller who ends it: its address and its process."""
    port = port or free_port(host)
    names = ["localhost", "127.0.0.1", host, *known_as]
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", database or f"sqlite:///{root.resolve() / 'mlflow.db'}",
        "--artifacts-destination", str(root.resolve() / "mlartifacts"),
        "--allowed-hosts", ",".join(f"{name}:{port}" for name in names),
    ]  # fmt: skip
    if app is not None:
        command += ["--app-name", app]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Its job runner is seven processes for features of language-model tracing.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryFile() as log:
        # A session of its own: mlflow starts workers, and all of them are to be ended together.
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=root,
            env=environment,
            start_new_session=True,
        )
        url = f"http://{host}:{port}"
        try:
            answers = _answers(f"{url}/health", server)
        except BaseException:  # Ctrl-C while it starts: it would stay behind
            end(server)
            raise
        if not answers:
            end(server)
            log.seek(0)
            last = log.read().decode(errors="replace").strip().splitlines()[-5:]
            raise Problem(f"the MLflow server on {url} did not start: {' | '.join(last)}")
    return url, server


def _answers(url: str, server: "subprocess.Popen[bytes]") -> bool:
    """Wait until `url` answers; False if the server ended or time ran out."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:  # URLError among them: not listening yet
            time.sleep(0.2)
    return False


def end(server: "subprocess.Popen[bytes]") -> None:
    """End the server with its workers; by force if it takes longer than STOP_SECONDS."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, request)
        except ProcessLookupError:
            break
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    server.wait()
