"""WORKERS=2: one address, one sum of counts, one limit; a killed worker is replaced."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.serving_process import Running, question, request, serving_process


@pytest.fixture
def running(tmp_path) -> Iterator[Running]:
    with serving_process(
        tmp_path / "log",
        workers=2,
        rate_limit=0.001,
        rate_burst=200,
        drain_seconds=0,
        model_cache=tmp_path / "models",
    ) as service:
        yield service


def workers_of(running: Running) -> list[int]:
    pid = running.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def answered(running: Running) -> float:
    text = running.ask(request(None, "X-API-Key: x", path="/metrics"))[2].decode()
    name = 'arithmetic_requests_total{outcome="answered",route="/predict"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if name in line)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads Linux' /proc")
def test_two_workers_are_one_service(running):
    assert len(workers_of(running)) == 2

    # Both answer; whichever is asked for /metrics says the sum.
    assert all(running.ask(question(f"{n}+1="))[0] == 200 for n in range(40))
    for _ in range(4):
        assert answered(running) == 40

    # The limit is one for both (the calls above were counted as well).
    codes = [running.ask(question("1+1="))[0] for _ in range(200)]
    assert codes.count(200) == 200 - 40 - 4
    assert set(codes) == {200, 429}

    # A worker that is killed is replaced.
    before = workers_of(running)
    os.kill(before[0], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = workers_of(running)
        if len(now) == 2 and before[0] not in now:
            break
        time.sleep(0.1)
    assert before[1] in workers_of(running)
    assert len(workers_of(running)) == 2
    assert "worker 0 ended with status -9" in running.log.read_text()

    # And SIGTERM ends all of them.
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert "Traceback" not in running.log.read_text()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads Linux' /proc")
def test_workers_end_with_a_parent_that_is_killed(running):
    workers = workers_of(running)
    running.process.kill()
    running.process.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
