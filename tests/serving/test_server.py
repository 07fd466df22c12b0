"""Graceful shutdown of the real process: no request is cut, and the exit status is 0."""

import asyncio
import json
import signal
import time
from dataclasses import dataclass

import pytest

from tests.serving.service_process import question, read_response, run_service

CONNECTIONS = 64


@dataclass
class Count:
    """Count what the clients of a shutdown saw."""

    answered: int = 0
    closed_in_order: int = 0
    cut: int = 0
    wrong: int = 0


async def ask_until_closed(port: int, number: int, pause: float, count: Count) -> None:
    """Ask without end on one connection, until a response says `Connection: close`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        try:
            writer.write(question(f"{number % 50}+{number % 50}="))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError):
            count.cut += 1
            break
        count.answered += 1
        if body.get("predicted_answer") != str(2 * (number % 50)):
            count.wrong += 1
        if b"connection: close" in head.lower():
            count.closed_in_order += 1
            break
        await asyncio.sleep(pause)
    writer.close()


async def saturate(service, pause: float) -> Count:
    """Ask on 64 connections without pause, and end the service meanwhile."""
    count = Count()
    clients = [
        asyncio.create_task(ask_until_closed(service.port, number, pause, count))
        for number in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.7)
    service.terminate()
    await asyncio.wait(clients, timeout=15)
    return count


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_saturated_connections_are_answered_and_closed_in_order(tmp_path, exact_model, pause):
    """With a pause, most connections are idle at the moment of SIGTERM."""
    with run_service(tmp_path / "log", MODEL_URI=exact_model) as service:
        count = asyncio.run(saturate(service, pause))
        assert service.process.wait(15) == 0
    assert (count.cut, count.wrong) == (0, 0)
    assert count.closed_in_order == CONNECTIONS
    assert count.answered > CONNECTIONS


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
            service.terminate()
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
            service.terminate()
            assert service.process.wait(6) == 0
        assert "graceful shutdown exceeded" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_starting_ends_it_with_status_0(tmp_path, exact_model, number):
    with run_service(tmp_path / "log", ready=False, MODEL_URI=exact_model) as service:
        service.process.send_signal(number)
        assert service.process.wait(10) == 0
    assert "Traceback" not in service.log.read_text()
