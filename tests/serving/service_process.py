"""Run the real service process, and speak HTTP/1.1 with it over raw sockets."""

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.server_process import build_service


@dataclass
class Service:
    """Hold a running service; `log` is its stderr and stdout."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def ask(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes on a new connection and read one response."""
        with self.connect() as connection:
            connection.sendall(raw)
            return read_response(connection)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Send a GET request."""
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def health(self) -> dict[str, object]:
        """Return the body of /health."""
        return dict(json.loads(self.get("/health")[2]))


def question(equation: str, *headers: str) -> bytes:
    """Return POST /predict as a client writes it."""
    body = json.dumps({"equation": equation}).encode()
    lines = ["POST /predict HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next response; raise if it was cut."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, body


@contextmanager
def run_service(log: Path, ready: str = "/readyz", **settings: object) -> Iterator[Service]:
    """Run `python -m serving`, its models in `cache` beside the log; end it by SIGTERM.

    Args:
        ready: the path to wait for; /livez answers without a model.
        settings: the environment; None removes a variable.
    """
    own = {"OMP_NUM_THREADS": 1, "MODEL_CACHE": log.parent / "cache"}
    merged = {**os.environ, **own, **settings}
    variables = {name: str(value) for name, value in merged.items() if value is not None}
    with build_service(log, variables, ready=ready) as server:
        yield Service(server.process, server.port, log)
