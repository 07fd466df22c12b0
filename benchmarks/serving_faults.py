"""What the trials of benchmarks/serving_trials.py need: a service process, load that checks every
answer, and a way to the registry that can be cut.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from arithmetic.errors import Problem
from arithmetic.grammar import Grammar, solve
from benchmarks.serving_client import Loops, Tally, post
from benchmarks.serving_environment import ready
from benchmarks.serving_load import cores
from benchmarks.serving_peers import ROOT
from benchmarks.serving_process import questions
from scripts.tracking_server import free_port

# Of the service: asked now, before anybody narrows what this process may use.
CORE = cores()[0]
START_SECONDS = 60.0
GRACE_SECONDS = 10.0


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
                ["taskset", "-c", str(CORE), sys.executable, "-m", "serving"],
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


@asynccontextmanager
async def service(tracking_uri: str, **settings: str) -> AsyncIterator[Service]:
    """A service that is ready; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-faults-") as scratch:
        found = Service(tracking_uri, Path(scratch), settings)
        try:
            await asyncio.to_thread(found.start)
            yield found
        finally:
            if found.process is not None and found.process.poll() is None:
                await asyncio.to_thread(found.terminate)


class Checked:
    """Closed loops of random equations that compare every answer with exact arithmetic.

    Attributes:
        wrong: answers that are not exact.
        versions: answers by the version that they name.
        latencies: seconds by status.
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

    def slowest(self, status: int) -> float:
        """Milliseconds of the slowest answer with a status; 0 without any."""
        return round(max(self.latencies.get(status, [0.0])) * 1e3, 1)

    def p99(self, status: int) -> float:
        """Milliseconds, of the answers with a status; 0 without any."""
        ordered = sorted(self.latencies.get(status, []))
        return round(ordered[int(0.99 * len(ordered))] * 1e3, 1) if ordered else 0.0


class Wire:
    """A way to the registry that can be cut: connections are forwarded until `cut()`."""

    def __init__(self, uri: str):
        parts = urlsplit(uri)
        self._target = parts.hostname or "", parts.port or 80
        self._netloc = parts.netloc
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = free_port("127.0.0.1")

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def join(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Refuse connections, and end those that there are."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away, there = await asyncio.open_connection(*self._target)
        both = {writer, there}
        self._writers |= both
        try:
            # MLflow's server looks at the Host header, port and all.
            host = f"127.0.0.1:{self.port}".encode(), self._netloc.encode()
            await asyncio.gather(_copy(reader, there, host), _copy(away, writer))
        finally:
            for one in both:
                one.close()
            self._writers -= both


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    host: tuple[bytes, bytes] = (b"", b""),
) -> None:
    with contextlib.suppress(ConnectionError):  # either side may go; the other is told
        while content := await reader.read(65536):
            writer.write(content.replace(*host) if host[0] else content)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def wire(uri: str) -> AsyncIterator[Wire]:
    """A joined wire; cut with the block."""
    found = Wire(uri)
    await found.join()
    try:
        yield found
    finally:
        found.cut()
