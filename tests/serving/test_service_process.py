"""The real process: its start and shutdown, a real registry, whatever it must not touch."""

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from benchmarks.serving_load import Loops
from registry import MODEL_NAME
from registry.client import open_client
from registry.record import record
from scripts.server_process import ROOT, build_mlflow
from tests.registry.project import make_project
from tests.serving.service_process import question, read_response, run_service

BLOCKED_PROXY = dict.fromkeys(
    ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9"
)


def test_a_bad_setting_and_a_busy_port_are_errors_with_a_hint(exact_model, monkeypatch):
    monkeypatch.setenv("MODEL_URI", str(exact_model))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        for value, error in (
            ("x", "PORT is 'x'"),
            (str(port), f"cannot listen on 127.0.0.1:{port}"),
        ):
            monkeypatch.setenv("PORT", value)
            command = [sys.executable, "-m", "serving"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert f"error: {error}" in done.stderr
            assert "\nhint: " in done.stderr
            assert "Traceback" not in done.stderr


def test_malformed_http_is_rejected_and_harms_nobody(tmp_path, exact_model):
    good = question("1+1=")
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    malformed = {
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n": {400, 0},
        b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n": {400, 0},
        good.replace(b"Content-Length: 20", b"Content-Length: -5"): {400, 0},
        chunked + b"zz\r\n": {400, 0},
        good.replace(b"POST", b"FROBNICATE"): {400, 405, 0},
        good.replace(b"/predict", b"/../../etc/passwd"): {400, 404},
    }
    assert good not in malformed
    with run_service(tmp_path / "log", MODEL_URI=exact_model) as service:
        for raw, accepted in malformed.items():
            try:
                status = service.ask(raw)[0]
            except (ConnectionError, http.client.HTTPException):
                status = 0  # the connection is closed without an answer
            assert status in accepted, raw
            assert service.ask(good)[0] == 200


def test_nothing_is_written_outside_the_cache_and_no_name_is_looked_up(tmp_path, exact_model):
    """A local model: no MLflow, no pandas, no torch, no telemetry, no file in the home."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, socket, sys\n"
        "def lookup(*arguments, **more):\n"
        "    print('LOOKUP', arguments, file=sys.stderr, flush=True)\n"
        "    return original(*arguments, **more)\n"
        "original, socket.getaddrinfo = socket.getaddrinfo, lookup\n"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr, flush=True))\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"MODEL_URI": exact_model, "HOME": home, "CI": None, "XDG_CACHE_HOME": None}
    log = tmp_path / "log"
    with run_service(log, PYTHONPATH=os.pathsep.join(paths), **settings) as service:
        assert service.ask(question("1+1="))[0] == 200
        assert service.get("/docs")[0] == 200
        service.process.terminate()
        assert service.process.wait(10) == 0
    lines = log.read_text().splitlines()
    assert not [line for line in lines if line.startswith("LOOKUP")]
    (modules,) = (line.split() for line in lines if line.startswith("MODULES"))
    assert not {"mlflow", "pandas", "torch"} & set(modules)
    assert "onnxruntime" in modules
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_path_prefix_is_kept_and_logs_are_json(tmp_path, exact_model):
    """The proxy strips the prefix, so the service sees paths without it."""
    settings = {"MODEL_URI": exact_model, "ROOT_PATH": "/api", "LOG_FORMAT": "json"}
    with run_service(tmp_path / "log", LOG_SAMPLE=1, **settings) as service:
        assert service.ask(question("1+1=", "X-Request-ID: r-1"))[0] == 200
        page = service.get("/docs")[2].decode()
        assert 'src="/api/static-offline-docs/' in page
        assert "'/api/openapi.json'" in page
        location = service.get("/livez/")[1]["location"]
        assert location == "http://x/api/livez"
        assert b'src="static/playground.js"' in service.get("/")[2]
        assert service.get("/static/playground.js")[0] == 200
    records = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    (request,) = (record for record in records if record.get("request_id") == "r-1")
    assert (request["route"], request["status"]) == ("/predict", 200)


@pytest.fixture
def mlflow_server(tmp_path):
    """Run an MLflow server over an empty store; return its address."""
    (tmp_path / "mlflow").mkdir()
    with build_mlflow(tmp_path / "mlflow") as mlflow:
        yield mlflow.address


def test_a_real_registry_is_followed_past_a_proxy_and_its_loss_survived(
    tmp_path, monkeypatch, mlflow_server
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    numbers = [record(make_project(tmp_path / f"p{n}", n)).version for n in range(2)]
    client = open_client()
    client.set_registered_model_alias(MODEL_NAME, "Production", numbers[0])
    settings = {"MLFLOW_TRACKING_URI": mlflow_server, **BLOCKED_PROXY, "no_proxy": None}
    with run_service(tmp_path / "log", **settings) as service:
        health = service.health()
        assert (health["model_version"], health["source"]) == (numbers[0], "registry")
        client.set_registered_model_alias(MODEL_NAME, "Production", numbers[1])
        deadline = time.monotonic() + 3  # the promise
        while service.health()["model_version"] != numbers[1]:
            assert time.monotonic() < deadline
            assert service.ask(question("1+1="))[0] == 200
            time.sleep(0.05)
    client.delete_registered_model_alias(MODEL_NAME, "Production")
    (state,) = (tmp_path / "cache").glob("*/state.json")
    assert [v["version"] for v in json.loads(state.read_text())["known_good"].values()] == numbers
    with run_service(tmp_path / "log", ready="/livez", **settings) as service:
        assert service.health()["model_loaded"] is False  # a registry that answers is believed


# Shutdown: no request is cut, and the exit status is 0.

CONNECTIONS = 64


def test_saturated_connections_are_answered_and_closed_in_order(tmp_path, exact_model):
    def is_right(status: int, body: bytes) -> bool:
        return status == 200 and json.loads(body)["predicted_answer"] == "42"

    with run_service(tmp_path / "log", MODEL_URI=exact_model) as service:
        requests = itertools.repeat((question("20+22="), is_right))
        loops = Loops(service.port, requests, reconnect=False)
        with loops.running(CONNECTIONS):
            time.sleep(0.7)
            service.process.terminate()
            assert service.process.wait(15) == 0
    assert loops.failures == 0
    assert loops.counts[200] > CONNECTIONS


def test_connections_that_are_idle_at_the_signal_are_answered_once_more(tmp_path, exact_model):
    with run_service(tmp_path / "log", MODEL_URI=exact_model) as service, ExitStack() as stack:
        connections = [stack.enter_context(service.connect()) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.sendall(question("1+1="))
            read_response(connection)
        service.process.terminate()
        time.sleep(0.3)
        for connection in connections:
            connection.sendall(question("1+1="))
            status, headers, _ = read_response(connection)
            assert (status, headers["connection"]) == (200, "close")
        assert service.process.wait(15) == 0


def test_while_draining_it_is_not_ready_and_still_answers(tmp_path, exact_model):
    """It answers new requests and one in arrival, and closes silent connections."""
    settings = {"MODEL_URI": exact_model, "DRAIN_SECONDS": 1.5}
    with run_service(tmp_path / "log", **settings) as service:
        raw = question("20+22=")
        with service.connect() as idle, service.connect() as used, service.connect() as slow:
            used.sendall(raw)
            read_response(used)
            slow.sendall(raw[:-5])
            time.sleep(0.2)
            service.process.terminate()
            started = time.monotonic()
            time.sleep(0.3)
            status, headers, body = service.get("/readyz")
            assert (status, headers["connection"]) == (503, "close")
            assert json.loads(body)["reason"] == "shutting down"
            assert service.ask(question("1+1="))[0] == service.get("/livez")[0] == 200
            assert idle.recv(1) == used.recv(1) == b""
            assert 0.8 < time.monotonic() - started < 4
            time.sleep(0.5)
            slow.sendall(raw[-5:])
            status, headers, body = read_response(slow)
            assert (status, headers["connection"]) == (200, "close")
            assert json.loads(body)["predicted_answer"] == "42"
        assert service.process.wait(10) == 0


def test_the_grace_period_ends_what_does_not_end_itself(tmp_path, exact_model):
    settings = {"MODEL_URI": exact_model, "GRACE_SECONDS": 1.5}
    with run_service(tmp_path / "log", **settings) as service:
        with service.connect() as stuck:
            stuck.sendall(question("1+1=")[:-5])
            time.sleep(0.2)
            service.process.terminate()
            assert service.process.wait(6) == 0
        assert "graceful shutdown exceeded" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_starting_ends_it_with_status_0(tmp_path, exact_model, number):
    with run_service(tmp_path / "log", ready="/livez", MODEL_URI=exact_model) as service:
        service.process.send_signal(number)
        assert service.process.wait(10) == 0
    assert "Traceback" not in service.log.read_text()
