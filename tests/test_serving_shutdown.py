"""SIGTERM under load: nobody who has asked, or asks on a connection that is open, is cut off."""

import asyncio
import json
import signal
import time
from dataclasses import dataclass

import pytest

from tests.serving_process import Running, question, request, serving_process

CONNECTIONS = 64


@dataclass
class Count:
    """What 64 clients saw."""

    answered: int = 0
    closed_politely: int = 0
    cut: int = 0
    wrong: int = 0


async def read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def client(running: Running, number: int, pause: float, count: Count) -> None:
    """Ask without end on one connection, until told `Connection: close`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    raw = question(f"{number}+{number}=")
    while True:
        try:
            writer.write(raw)
            head, body = await read(reader)
        except (OSError, asyncio.IncompleteReadError):
            count.cut += 1
            break
        count.answered += 1
        if not head.startswith(b"HTTP/1.1 200 ") or json.loads(body)["predicted_answer"] != str(
            2 * number
        ):
            count.wrong += 1
        if b"connection: close" in head.lower():
            count.closed_politely += 1
            break
        await asyncio.sleep(pause)
    writer.close()


async def under_load(running: Running, pause: float) -> Count:
    count = Count()
    clients = [
        asyncio.create_task(client(running, number, pause, count)) for number in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.7)
    running.process.send_signal(signal.SIGTERM)
    await asyncio.wait(clients, timeout=15)
    return count


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_of_64_saturated_connections_none_is_cut(tmp_path, pause):
    """With a pause most of them are idle at the signal, which is when uvicorn alone cuts them."""
    with serving_process(tmp_path / "log", drain_seconds=0) as running:
        count = asyncio.run(under_load(running, pause))
        code = running.process.wait(10)
    assert count.answered > CONNECTIONS
    assert (count.cut, count.wrong, count.closed_politely) == (0, 0, CONNECTIONS)
    assert code == 0
    assert "Traceback" not in running.log.read_text()


def test_while_ending_it_is_not_ready_but_still_answers(tmp_path):
    """A load balancer sees the 503 while requests are still answered, on new connections too."""
    with serving_process(tmp_path / "log", drain_seconds=1.5) as running:
        assert running.ask(request(None, path="/readyz"))[0] == 200
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        status, headers, body = running.ask(request(None, path="/readyz"))
        assert (status, json.loads(body)["reason"]) == (503, "ending")
        assert headers["connection"] == "close"
        assert running.ask(request(None, path="/livez"))[0] == 200
        assert running.ask(question("1+1="))[0] == 200
        assert running.process.wait(10) == 0


def test_silent_and_endless_connections_do_not_keep_it_alive(tmp_path):
    """One client says nothing more, one sends half a request: neither outlives the grace period."""
    with (
        serving_process(tmp_path / "log", grace_seconds=3, drain_seconds=0) as running,
        running.connect() as silent,
        running.connect() as half,
    ):
        silent.sendall(question("1+1="))
        assert silent.recv(1000).startswith(b"HTTP/1.1 200")
        half.sendall(question("1+1=")[:-5])
        time.sleep(0.2)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert time.monotonic() - started < 6


def test_interrupted_from_a_terminal_it_ends_the_same_way(tmp_path):
    with serving_process(tmp_path / "log", drain_seconds=0) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) == 0
    assert "Traceback" not in running.log.read_text()
