"""Start the service, MLflow or another server as a process, wait until it answers, and end it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from arithmetic.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS, STOP_SECONDS, SWAP_SECONDS = 300.0, 60.0, 60.0  # on a busy machine
# Loopback never goes through a proxy of the environment.
_client = httpx.Client(trust_env=False, timeout=10, headers={"Connection": "close"})


def request(url: str, body: object = None) -> Any:
    """GET, or POST a JSON body; return the JSON answer. Raise httpx.HTTPError."""
    answer = _client.request("GET" if body is None else "POST", url, json=body)
    return answer.raise_for_status().json()


def wait_for(url: str, hint: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until `url` answers 200; raise UserError when it is late or `process` ended."""
    deadline = time.monotonic() + START_SECONDS
    reason = ""
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            answer = _client.get(url)
            if answer.is_success:
                return
            reason = answer.text[:300] or str(answer)  # 503 while it loads the model
        except httpx.TransportError as error:  # not listening yet
            reason = str(error)
        time.sleep(0.05)
    if process is not None and process.poll() is not None:
        reason = f"the process ended with status {process.returncode}"
    raise UserError(f"{url} is not ready: {reason}", hint)


def wait_for_version(address: str, version: str) -> float:
    """Return the seconds until a service serves a version; raise UserError after SWAP_SECONDS."""
    started = time.perf_counter()
    while str(request(f"{address}/health")["model_version"]) != version:
        if time.perf_counter() - started > SWAP_SECONDS:
            raise UserError(f"{address} does not serve version {version} in {SWAP_SECONDS:g} s")
        time.sleep(0.02)
    return time.perf_counter() - started


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


@dataclass
class ServerProcess:
    """Run a server as a process group of its own; `start` again uses the same port.

    Attributes:
        ready: the path that answers 200 when it serves.
        log: a file that its output is appended to.
        hint: of the error when it does not become ready.
    """

    command: list[str]
    address: str
    ready: str
    log: Path
    environment: Mapping[str, str]
    hint: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def port(self) -> int:
        """Return the port of the address."""
        return int(self.address.rpartition(":")[2])

    def start(self) -> float:
        """Start it and wait until it is ready; return the seconds.

        Raises:
            UserError: it ended or is late; with the end of its log.
        """
        started = time.perf_counter()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for(self.address + self.ready, self.hint, self.process)
        except UserError as error:
            end = self.log.read_text(errors="replace")[-1200:]
            raise UserError(f"{error}\n{end}".strip(), self.hint) from None
        return time.perf_counter() - started

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the process group, SIGKILL after a while; return the exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
            try:
                return self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def build_service(
    log: Path, variables: Mapping[str, str], port: str = "", ready: str = "/readyz"
) -> ServerProcess:
    """Return the service on loopback, on `port` or a free one."""
    port = port or str(free_port())
    environment = {**variables, "HOST": "127.0.0.1", "PORT": port}
    command = [sys.executable, "-m", "serving"]
    return ServerProcess(command, f"http://127.0.0.1:{port}", ready, log, environment)


def build_mlflow(
    folder: Path, *options: str, host: str = "127.0.0.1", variables: Mapping[str, str] = os.environ
) -> ServerProcess:
    """Return MLflow on a free port, with the store `mlflow.db` and the artifacts in `folder`."""
    port = free_port(host)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", *options]
    command += ["--host", host, "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    # MLflow's job runner has six workers.
    without_jobs = {**variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return ServerProcess(command, f"http://{host}:{port}", "/health", folder / "log", without_jobs)
