"""The service under load while things go wrong: each function is one trial and returns its row.

A row counts what was tried and `failures`: answers that are wrong or of a status that is not right
there, connections cut that should not be, a service that does not come back. Zero is expected.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from arithmetic.errors import Problem
from arithmetic.grammar import Grammar, solve
from benchmarks.serving_client import Loops, Tally, post, read_answer
from benchmarks.serving_environment import memory, ready
from benchmarks.serving_inputs import Bad, handmade, random_ones
from benchmarks.serving_load import cores
from benchmarks.serving_peers import ROOT
from benchmarks.serving_process import questions
from registry import ALIAS, MODEL
from scripts.tracking_server import free_port

CONNECTIONS = 64
START_SECONDS = 60.0
GRACE_SECONDS = 10.0
# An alias must be followed within this; the service looks every second or two.
FOLLOW_SECONDS = 30.0

Row = dict[str, Any]


@dataclass
class Service:
    """One service process on the core for servers, always on the same port.

    Attributes:
        tracking_uri: where its versions come from.
        settings: further variables of its environment.
    """

    tracking_uri: str
    scratch: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/predict"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> float:
        """Start and wait until it is ready; returns the seconds. Raises Problem."""
        self.port = self.port or free_port("127.0.0.1")
        began = time.perf_counter()
        with (self.scratch / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(cores()[0]), sys.executable, "-m", "serving"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "MLFLOW_TRACKING_URI": self.tracking_uri,
                    "MODEL_CACHE": str(self.scratch / "models"),
                    "HOST": "127.0.0.1",
                    "PORT": str(self.port),
                    **self.settings,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while not ready(self.address):
            if self.process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                last = (self.scratch / "log").read_text(errors="replace").strip()[-800:]
                raise Problem(f"the service did not start: {last}")
            time.sleep(0.02)
        return time.perf_counter() - began

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, and its exit status; -9 if it did not end within the grace period."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL


@contextmanager
def service(tracking_uri: str, **settings: str) -> Iterator[Service]:
    """A service that is ready; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-faults-") as scratch:
        found = Service(tracking_uri, Path(scratch), settings)
        try:
            found.start()
            yield found
        finally:
            if found.process is not None and found.process.poll() is None:
                found.terminate()


class Checked:
    """Closed loops of random equations that compare every answer with exact arithmetic.

    Attributes:
        wrong: answers that are not exact.
        versions: answers by the version that they name.
        hurried: 503s without Retry-After.
    """

    def __init__(self, url: str, operations: str = "+-", reconnect: bool = True):
        grammar = Grammar(tuple(operations), 999)
        texts = questions(operations, 1000, seed=3)
        self._right = [solve(grammar.parse(text)) for text in texts]
        requests = [post(url, json.dumps({"equation": text}).encode()) for text in texts]
        self.loops = Loops(url, requests, self._seen, reconnect)
        self.wrong = 0
        self.versions: dict[str, int] = {}
        self.latencies: dict[int, list[float]] = {}

    def _seen(self, index: int, status: int, body: bytes, seconds: float) -> None:
        self.latencies.setdefault(status, []).append(seconds)
        if status != httpx.codes.OK:
            return
        answer = json.loads(body)
        self.wrong += answer["predicted_answer"] != self._right[index]
        version = answer["model_version"]
        self.versions[version] = self.versions.get(version, 0) + 1

    @property
    def tally(self) -> Tally:
        return self.loops.tally

    @property
    def failures(self) -> int:
        """Wrong answers, answers that are no answers, connections cut or refused."""
        return self.tally.failures + self.wrong

    def p99(self, status: int) -> float:
        """Milliseconds, of the answers with a status; 0 without any."""
        ordered = sorted(self.latencies.get(status, []))
        return round(ordered[int(0.99 * len(ordered))] * 1e3, 1) if ordered else 0.0


async def load(uri: str, seconds: float) -> Row:
    """64 connections, every answer checked."""
    with service(uri) as running:
        checked = Checked(running.url)
        await checked.loops.run(CONNECTIONS, seconds)
    return {
        "requests": checked.tally.answers,
        "requests_per_second": round(checked.tally.answers / seconds),
        "p99_ms": checked.p99(200),
        "failures": checked.failures,
    }


async def overload(uri: str, seconds: float, connections: int = 2000) -> Row:
    """More divisions at once than the queue holds: some are refused at once, the rest answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * connections + 200)), hard))
    settings = {"MODEL_URI": f"models:/{MODEL}/2", "QUEUE_LIMIT": "1024"}
    with service(uri, **settings) as running:
        checked = Checked(running.url, "/")
        await checked.loops.run(connections, seconds)
        await asyncio.sleep(1)
        after = Checked(running.url, "/")
        await after.loops.run(1, 1)
    statuses = checked.tally.statuses
    answered, shed = statuses.get(200, 0), statuses.get(503, 0)
    other = checked.tally.answers - answered - shed
    return {
        "connections": connections,
        "answered": answered,
        "shed": shed,
        "answered_p99_ms": checked.p99(200),
        "shed_p99_ms": checked.p99(503),
        "alone_afterwards_p99_ms": after.p99(200),
        # Nothing shed would be no overload; a slow answer is a queue that grew.
        "failures": other + checked.wrong + checked.tally.cut + after.failures
        + (shed == 0) + (checked.p99(200) > 5000),
    }  # fmt: skip


async def kills(uri: str, count: int) -> Row:
    """`kill -9` under load and start again: it comes back, and nothing it ever says is wrong."""
    seconds, lost = [], 0
    with service(uri) as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
        for _ in range(count):
            await asyncio.sleep(0.5)
            running.kill()
            seconds.append(await asyncio.to_thread(running.start))
        before = checked.tally.statuses.get(200, 0)
        await asyncio.sleep(1)
        served_on = checked.tally.statuses.get(200, 0) > before
        checked.loops.stop()
        await loops
    lost = checked.tally.cut
    other = checked.tally.answers - checked.tally.statuses.get(200, 0)
    return {
        "kills": count,
        "restart_seconds": round(sorted(seconds)[len(seconds) // 2], 2),
        "requests": checked.tally.answers,
        # Those in flight when the process was killed: nobody could have answered them.
        "cut_by_kill": lost,
        "failures": checked.wrong + other + (not served_on) + max(0, lost - count * CONNECTIONS),
    }


def set_alias(uri: str, version: str) -> None:
    """Make a version Production, as MLflow's own pages do."""
    httpx.post(
        f"{uri}/api/2.0/mlflow/registered-models/alias",
        json={"name": MODEL, "alias": ALIAS, "version": version},
        timeout=30,
    ).raise_for_status()


async def swaps(uri: str, count: int) -> Row:
    """Promotions and rollbacks between two versions under load."""
    slow, seconds = 0, []
    with service(uri) as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
        async with httpx.AsyncClient(timeout=30) as client:
            for number in range(count):
                version = "12"[(number + 1) % 2]
                await asyncio.to_thread(set_alias, uri, version)
                began = time.perf_counter()
                while time.perf_counter() - began < FOLLOW_SECONDS:
                    health = (await client.get(f"{running.address}/health")).json()
                    if health["model_version"] == version:
                        seconds.append(time.perf_counter() - began)
                        break
                    await asyncio.sleep(0.05)
                else:
                    slow += 1
                    break
        checked.loops.stop()
        await loops
        await asyncio.to_thread(set_alias, uri, "1")
    strangers = sum(n for version, n in checked.versions.items() if version not in ("1", "2"))
    return {
        "swaps": len(seconds),
        "median_seconds": round(sorted(seconds)[len(seconds) // 2], 2) if seconds else None,
        "requests": checked.tally.answers,
        "answers_by_version": dict(sorted(checked.versions.items())),
        "failures": checked.failures + slow + strangers,
    }


async def bad_inputs(uri: str, count: int) -> Row:
    """Bad requests beside healthy ones: the right status each, and no neighbour is harmed."""
    unexpected: list[str] = []
    with service(uri, REQUEST_SECONDS="2") as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(8))
        made = handmade()
        for bad in [*made, *islice(random_ones(1), max(0, count - len(made)))]:
            status = await _status(running.port, bad)
            if status not in bad.right:
                unexpected.append(f"{bad.name}: {status}")
        rude = await _rude(running.port)
        checked.loops.stop()
        await loops
        alive = ready(running.address)
    return {
        "bad_inputs": max(count, len(made)) + rude,
        "unexpected": unexpected[:20],
        "healthy_requests": checked.tally.answers,
        "failures": len(unexpected) + checked.failures + (not alive),
    }


async def _status(port: int, bad: Bad) -> int:
    """The answer's status; 0 if the connection was closed, -1 if nothing came within 10 s."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(bad.content)
        status, _, _ = await asyncio.wait_for(read_answer(reader), 10)
        return status
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    except TimeoutError:
        return -1
    finally:
        writer.close()


async def _rude(port: int) -> int:
    """Clients that break off in mid-request, send a byte at a time, or never read; how many."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = head + b'Content-Length: 20\r\n\r\n{"equation": "1+1="}'
    writers = []
    for cut in range(1, len(whole), 7):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole[:cut])
        writers.append(writer)
    for _ in range(20):  # a whole request, and gone before the answer
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole * 5)
        writer.transport.abort()
    await asyncio.sleep(3)
    for writer in writers:
        writer.close()
    return len(writers) + 20


async def terminations(uri: str, count: int) -> Row:
    """SIGTERM to 64 saturated keep-alive connections: nothing is cut, exit 0 in time."""
    cut, statuses, exits, seconds, answers = 0, 0, [], [], 0
    for _ in range(count):
        with service(uri) as running:
            checked = Checked(running.url, reconnect=False)
            loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
            await asyncio.sleep(1)
            began = time.perf_counter()
            exits.append(await asyncio.to_thread(running.terminate))
            seconds.append(time.perf_counter() - began)
            checked.loops.stop()
            await asyncio.wait_for(loops, GRACE_SECONDS)
        tally = checked.tally
        cut += tally.cut
        answers += tally.answers
        statuses += tally.answers - tally.statuses.get(200, 0) + checked.wrong
    return {
        "terminations": count,
        "connections": CONNECTIONS,
        "requests": answers,
        "cut": cut,
        "longest_seconds": round(max(seconds), 2),
        "failures": cut + statuses + sum(status != 0 for status in exits),
    }


async def soak(uri: str, seconds: float, warm_seconds: float) -> Row:
    """Memory after a soak against before; every answer checked."""
    with service(uri) as running:
        warm = Checked(running.url)
        await warm.loops.run(CONNECTIONS, warm_seconds)
        before = memory(running.pid)
        checked = Checked(running.url)
        await checked.loops.run(CONNECTIONS, seconds)
        after = memory(running.pid)
    return {
        "seconds": seconds,
        "requests": checked.tally.answers,
        "memory_before_mb": round(before, 1),
        "memory_after_mb": round(after, 1),
        "p99_ms": checked.p99(200),
        "failures": checked.failures,
    }
