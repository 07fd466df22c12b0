"""A real MLflow server, on loopback unless a test names another address."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 600.0  # MLflow takes half a minute on a busy machine


@contextmanager
def run_mlflow_server(folder: Path, *options: str, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the store `mlflow.db` and the artifacts in `folder`; yield the address."""
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", host, *options]
    # Without MLflow's job runner and its six workers.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    address = f"http://{host}:{port}"
    try:
        _wait_until_healthy(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def write_basic_auth(path: Path, folder: Path, password: str) -> None:
    """Write the configuration of `--app-name=basic-auth`: an admin, and users in `folder`."""
    path.write_text(
        f"[mlflow]\ndatabase_uri = sqlite:///{folder}/users.db\n"
        "default_permission = NO_PERMISSIONS\n"
        f"admin_username = admin\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )


def _wait_until_healthy(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            opener.open(f"{address}/health", timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())
