"""Graceful shutdown of the real process: no request is cut, and the exit status is 0."""

import itertools
import json
import signal
import time
from contextlib import ExitStack

import pytest

from benchmarks.serving_load import Loops
from tests.serving.service_process import question, read_response, run_service

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
