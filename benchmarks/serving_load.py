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
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from arithmetic.errors import UserError
from arithmetic.grammar import OPERATIONS, Grammar

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
ANSWER_SECONDS = 30.0  # later than any deadline of the service
Check = Callable[[int, bytes], bool]  # whether status and body are correct


@cache
def cores() -> tuple[int, int]:
    """Return the cores for servers and for load, also after this process narrowed its own."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def random_equations(grammar: Grammar, operations: str, count: int, seed: int = 1) -> list[str]:
    """Return random equations of these operations in turn."""
    rng, texts = random.Random(seed), []
    for index in range(count):
        operation = operations[index % len(operations)]
        second = rng.randint(OPERATIONS[operation].smallest_operand_2, grammar.max_operand)
        texts.append(f"{rng.randint(0, grammar.max_operand)}{operation}{second}=")
    return texts


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
        variables = {**os.environ, "BODIES": str(lines)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise UserError(f"wrk failed on {url}: {(done.stdout + done.stderr).strip()[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def encode_post(path: str, body: object) -> bytes:
    """Return a POST request with a JSON body, or with a body of bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


class Loops:
    """Run closed loops over keep-alive connections, which share the requests.

    Attributes:
        reconnect: whether a loop whose connection ended or was refused opens another.
        seconds: latencies by status.
        wrong: answers that their check rejects.
        cut: requests whose connection was lost before their answer was complete.
        refused: connections that could not be opened.
        unanswered: requests without an answer within ANSWER_SECONDS.
    """

    def __init__(self, port: int, requests: Iterator[tuple[bytes, Check]], reconnect: bool = True):
        self.port, self.requests, self.reconnect = port, requests, reconnect
        self.seconds: defaultdict[int, list[float]] = defaultdict(list)
        self.wrong = self.cut = self.refused = self.unanswered = 0
        self.end = float("inf")

    @property
    def statuses(self) -> Counter[int]:
        """Return the number of answers by status."""
        return Counter({status: len(values) for status, values in self.seconds.items()})

    @property
    def failures(self) -> int:
        """Return the number of requests without a right answer."""
        return self.wrong + self.cut + self.refused + self.unanswered

    def percentile_ms(self, status: int, share: float = 0.99) -> float:
        """Return a percentile of the latency of answers with a status; 0 without any."""
        ordered = sorted(self.seconds[status]) or [0.0]
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 1)

    def run(self, connections: int, seconds: float = float("inf")) -> "Loops":
        """Run for a time, or until the requests are used up."""
        self.end = time.monotonic() + seconds
        asyncio.run(self._run(connections))
        return self

    @contextmanager
    def running(self, connections: int) -> Iterator["Loops"]:
        """Run in a thread until the block ends; each loop finishes its request."""
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(asyncio.run, self._run(connections))
            try:
                yield self
            finally:
                self.end = 0.0
                result.result()

    async def _run(self, connections: int) -> None:
        await asyncio.gather(*(self._loop() for _ in range(connections)))

    async def _loop(self) -> None:
        while time.monotonic() < self.end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                try:
                    while time.monotonic() < self.end and await self._ask(reader, writer):
                        pass
                finally:
                    writer.close()
            if not self.reconnect:
                return

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the next request; return False when the connection is over."""
        if reader.at_eof():
            return False
        content, check = next(self.requests, (b"", None))
        if check is None:
            self.end = 0.0
            return False
        started = time.perf_counter()
        writer.write(content)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
        except TimeoutError:
            self.unanswered += 1
            return False
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut += 1
            return False
        status = int(head[9:12])
        self.seconds[status].append(time.perf_counter() - started)
        self.wrong += not check(status, body)
        return b"\r\nconnection: close\r\n" not in head
