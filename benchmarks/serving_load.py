"""Put load on an HTTP server: `wrk` for figures, closed loops in Python for checked answers.

`wrk` takes a third of a core where Python takes a whole one. The loops compare every answer and
count what happens to every connection; they write bytes made in advance, since an HTTP library
costs several times what the service does.
"""

import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from arithmetic import artifacts
from arithmetic.errors import UserError
from arithmetic.grammar import OPERATIONS, Grammar
from benchmarks.workspace import run

# wrk's script: the lines of the file BODIES as JSON bodies, in turn; figures as JSON.
SCRIPT = """
local bodies, index = {}, 0
function init()
  for line in io.lines(os.getenv("BODIES")) do
    bodies[#bodies + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, line)
  end
end
function request()
  index = index % #bodies + 1
  return bodies[index]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"per_second": %.1f, "p50_ms": %.3f, "p99_ms": %.3f, "failures": %d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
BODY = '{"equation": "EQUATION"}'
ANSWER_SECONDS = 30.0  # later than any deadline of the service
Check = Callable[[int, bytes], bool]  # whether status and body are correct


@cache
def cores() -> tuple[int, int]:
    """Return the cores for servers and for load, also after this process narrowed its own."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def random_equations(grammar: Grammar, count: int, seed: int = 1) -> list[str]:
    """Return random equations of a model's domain."""
    rng, texts = random.Random(seed), []
    for _ in range(count):
        operation = rng.choice(grammar.operations)
        second = rng.randint(OPERATIONS[operation].smallest_operand_2, grammar.max_operand)
        texts.append(f"{rng.randint(0, grammar.max_operand)}{operation}{second}=")
    return texts


def make_bodies(model: Path, template: str = BODY) -> list[str]:
    """Return JSON bodies with random equations of a model's domain in place of EQUATION."""
    grammar = artifacts.load_config(model).get_grammar()
    return [template.replace("EQUATION", text) for text in random_equations(grammar, 1000)]


def run_wrk(
    url: str, bodies: Sequence[str], connections: int, seconds: float, core: int | str
) -> dict[str, float]:
    """Put closed loops on `url`; failures are all but answers of status 2xx and 3xx."""
    if shutil.which("wrk") is None:
        raise UserError("the load generator wrk is not installed", "apt-get install wrk")
    with tempfile.TemporaryDirectory() as scratch:
        script, lines = Path(scratch) / "script.lua", Path(scratch) / "bodies.jsonl"
        script.write_text(SCRIPT)
        lines.write_text("\n".join(bodies))
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{max(1, round(seconds))}s", "-s", str(script), url]
        figures: dict[str, float] = json.loads(run(command, BODIES=str(lines)).splitlines()[-1])
        return figures


def encode_post(path: str, body: object) -> bytes:
    """Return a POST request with a JSON body, or with one that is bytes already."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


def is_right(expected: object, accepted: Container[int], status: int, body: bytes) -> bool:
    """Return whether one answer or a list of answers is exact, or another status is accepted."""
    if status != 200:
        return status in accepted
    answer = json.loads(body)
    return bool(expected == (answer.get("predicted_answers") or answer.get("predicted_answer")))


class Loops:
    """Run closed loops over keep-alive connections.

    Attributes:
        requests: bytes to send and the check of the answer, which all loops share; without end.
        reconnect: whether a loop whose connection ended or was refused opens another.
        counts: answers by status; answers that are `wrong` by their check; requests `cut` before
            their answer was complete, or `unanswered` in time; connections `refused`.
        seconds: latencies of the answers with status 200.
    """

    def __init__(self, port: int, requests: Iterator[tuple[bytes, Check]], reconnect: bool = True):
        self.port, self.requests, self.reconnect = port, requests, reconnect
        self.counts: Counter[int | str] = Counter()
        self.seconds: list[float] = []
        self.is_stopped = False

    @property
    def answers(self) -> int:
        """Return the number of answers."""
        return sum(count for key, count in self.counts.items() if isinstance(key, int))

    @property
    def failures(self) -> int:
        """Return the number of requests without a correct answer."""
        return sum(count for key, count in self.counts.items() if isinstance(key, str))

    @property
    def p99_ms(self) -> float:
        """Return the 99th percentile of the latencies."""
        return round(float(np.percentile(self.seconds or [0.0], 99)) * 1e3, 1)

    def run(self, connections: int, seconds: float) -> "Loops":
        """Run for a time."""
        with self.running(connections):
            time.sleep(seconds)
        return self

    @contextmanager
    def running(self, connections: int) -> Iterator["Loops"]:
        """Run in a thread until the block ends; each loop finishes its request."""
        self.is_stopped = False
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(asyncio.run, self._run(connections))
            try:
                yield self
            finally:
                self.is_stopped = True
                result.result()

    async def _run(self, connections: int) -> None:
        await asyncio.gather(*(self._loop() for _ in range(connections)))

    async def _loop(self) -> None:
        while not self.is_stopped:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.counts["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                while not self.is_stopped and await self._ask(reader, writer):
                    pass
            finally:
                writer.close()
            if not self.reconnect:
                return

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the next request; return False when the connection is over."""
        if reader.at_eof():
            return False
        content, check = next(self.requests)
        started = time.perf_counter()
        writer.write(content)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
        except TimeoutError:
            self.counts["unanswered"] += 1
            return False
        except (asyncio.IncompleteReadError, ConnectionError):
            self.counts["cut"] += 1
            return False
        status = int(head[9:12])
        self.counts[status] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - started)
        if not check(status, body):
            self.counts["wrong"] += 1
        return b"\r\nconnection: close\r\n" not in head
