"""A real serving process over a folder instead of a registry, for tests that need real sockets.

python -m tests.serving_process FOLDER     with the service's settings in the environment
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arithmetic import bundle
from arithmetic.errors import reported
from registry.pull import Pulled
from serving.__main__ import serve
from serving.settings import from_environment
from tests.folder_registry import Answers

ROOT = Path(__file__).resolve().parents[1]
# The committed model, exact on `+ -` up to 999.
EXACT = ROOT / "bundle"


@dataclass
class Running:
    """A process that serves, and its port."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    started_by: bool = False  # the process is not the service, but its parent

    def end(self) -> None:
        """SIGTERM to the service itself."""
        pid = self.process.pid
        if self.started_by:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, signal.SIGTERM)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def ask(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes on a connection of their own and read one response."""
        with self.connect() as connection:
            connection.sendall(raw)
            return read_response(connection)


def request(body: bytes | str | None, *headers: str, path: str = "/predict") -> bytes:
    """POST as a client writes it (GET without a body)."""
    if body is None:
        lines = [f"GET {path} HTTP/1.1", "Host: x", *headers]
        return "\r\n".join([*lines, "", ""]).encode()
    content = body if isinstance(body, bytes) else body.encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}"]
    if not any(header.lower().startswith("content-type") for header in headers):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


def question(equation: str, *headers: str) -> bytes:
    return request(json.dumps({"equation": equation}), *headers)


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next response; ConnectionError if it was cut."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection, received)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers["content-length"]):
        body += _more(connection, body)
    return int(first.split()[1]), headers, body


def _more(connection: socket.socket, so_far: bytes) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError(f"cut after {len(so_far)} bytes of a response")
    return data


@contextmanager
def serving_process(
    log: Path, folder: Path = EXACT, prefix: Sequence[str] = (), **settings: object
) -> Iterator[Running]:
    """The process for as long as the block lasts; ended by SIGTERM, and by force if that fails."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "PORT": str(port),
        "OMP_NUM_THREADS": "1",
        **{name.upper(): str(value) for name, value in settings.items()},
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.serving_process", str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Running(process, port, log, bool(prefix))
    try:
        _wait(running)
        yield running
    finally:
        if process.poll() is None:
            running.end()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(running: Running) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            if running.ask(request(None, path="/readyz"))[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the service is not ready: {running.log.read_text()}")


def pulled(folder: Path) -> Pulled:
    return Pulled("arithmetic-lm", "7", folder, bundle.digest(folder), errors=1000)


def main() -> None:
    with reported():
        serve(from_environment(), Answers(lambda *_: pulled(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
