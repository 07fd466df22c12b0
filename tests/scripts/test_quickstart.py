"""The quickstart's way to wait for a service and to ask it."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from arithmetic.errors import UserError
from scripts import quickstart


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
        "from scripts.quickstart import request, wait_for\n"
        f"wait_for({address!r} + '/readyz', '')\n"
        f"print(request({address!r} + '/predict', {{'equation': '1+1='}}))"
    )
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=proxies, capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'equation': '1+1='}\n", done.stderr


def test_a_service_that_does_not_become_ready_gives_its_reason(address, monkeypatch):
    monkeypatch.setattr(quickstart, "START_SECONDS", 0.5)
    with pytest.raises(UserError, match="the self-test failed") as error:
        quickstart.wait_for(f"{address}/loading", "its log is x.log")
    assert error.value.hint == "its log is x.log"


def test_a_service_that_ends_is_not_waited_for():
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(UserError, match="the process ended with status 3"):
        quickstart.wait_for("http://127.0.0.1:9/readyz", "", process)
