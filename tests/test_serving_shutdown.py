"""SIGTERM under load: nobody who has asked, or asks on a connection that is open, is cut off."""

import asyncio
import json
import signal
import subprocess
import time

import pytest

from tests.saturated import CONNECTIONS, under_load
from tests.serving_process import question, request, serving_process


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_of_64_saturated_connections_none_is_cut(tmp_path, pause):
    """With a pause most of them are idle at the signal, which is when uvicorn alone cuts them."""
    with serving_process(tmp_path / "log", drain_seconds=0) as running:
        count = asyncio.run(under_load(running.port, running.end, pause))
        code = running.process.wait(10)
    assert count.answered > CONNECTIONS
    assert (count.cut, count.wrong, count.closed_politely) == (0, 0, CONNECTIONS)
    assert code == 0
    assert "Traceback" not in running.log.read_text()


def test_while_ending_it_is_not_ready_but_still_answers(tmp_path):
    """A load balancer sees the 503 while requests are still answered, on new connections too."""
    with serving_process(tmp_path / "log", drain_seconds=4) as running:
        assert running.ask(request(None, path="/readyz"))[0] == 200
        running.end()
        status, headers, body = running.ask(request(None, path="/readyz"))
        while status == 200:  # the signal is on its way
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
        running.end()
        assert running.process.wait(15) == 0, "or it was killed past the grace period"


def test_interrupted_from_a_terminal_it_ends_the_same_way(tmp_path):
    with serving_process(tmp_path / "log", drain_seconds=0) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) == 0
    assert "Traceback" not in running.log.read_text()


def own_processes() -> bool:
    """Whether this system lets a test make a PID 1."""
    try:
        return subprocess.run(["unshare", "-p", "-f", "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not own_processes(), reason="needs unshare -p; test_docker.py has the container"
)
def test_as_pid_1_it_ends_as_well(tmp_path):
    """The kernel gives PID 1 no default for SIGTERM: unhandled, it would be ignored."""
    prefix = ("unshare", "-p", "-f", "--mount-proc", "--kill-child")
    with serving_process(tmp_path / "log", prefix=prefix, drain_seconds=0) as running:
        count = asyncio.run(under_load(running.port, running.end))
        assert running.process.wait(10) == 0
    assert (count.cut, count.wrong, count.closed_politely) == (0, 0, CONNECTIONS)
