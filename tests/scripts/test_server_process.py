"""Servers that are late, end or ignore SIGTERM, and how they are asked."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from arithmetic.errors import UserError
from scripts import server_process
from scripts.server_process import ServerProcess, free_port, wait_for


class Service(BaseHTTPRequestHandler):
    """Answer as a service does that is ready at `/readyz` and never at `/loading`."""

    def do_GET(self):
        self.answer(503 if self.path == "/loading" else 200, {"reason": "the self-test failed"})

    def do_POST(self):
        self.answer(200, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_loopback_never_goes_through_a_proxy(address):
    code = (
        "from scripts.server_process import request, wait_for\n"
        f"wait_for({address!r} + '/readyz', '')\n"
        f"print(request({address!r} + '/predict', {{'equation': '1+1='}}))"
    )
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=proxies, capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'equation': '1+1='}\n", done.stderr


def test_a_service_that_does_not_become_ready_gives_its_reason(address, monkeypatch):
    monkeypatch.setattr(server_process, "START_SECONDS", 0.5)
    with pytest.raises(UserError, match="the self-test failed") as error:
        wait_for(f"{address}/loading", "its log is x.log")
    assert error.value.hint == "its log is x.log"


def run(log: Path, script: str) -> ServerProcess:
    port = free_port()
    command = ["bash", "-c", script.format(python=sys.executable, port=port)]
    return ServerProcess(command, f"http://127.0.0.1:{port}", "/", log, os.environ, "its log")


def test_a_server_that_ends_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(UserError, match=r"ended with status 3\nno model$") as error:
        run(tmp_path / "log", "echo no model; exit 3").start()
    assert error.value.hint == "its log"


def test_a_server_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "STOP_SECONDS", 0.1)
    ignoring = "trap '' TERM; exec {python} -m http.server --bind 127.0.0.1 {port}"
    with run(tmp_path / "log", ignoring) as server:
        assert server.stop() == -signal.SIGKILL
