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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

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
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failures": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def cores() -> tuple[int, int]:
    """Return the core for servers and the core for load; the same where there is only one."""
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


@dataclass(frozen=True)
class Sample:
    """Hold what one run of wrk measured; failures are all but answers of status 2xx and 3xx."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int


def run_wrk(
    url: str, bodies: Sequence[object], connections: int, seconds: float, core: int
) -> Sample:
    """Put closed loops on `url` for whole seconds; raise UserError if wrk fails or is missing."""
    if shutil.which("wrk") is None:
        raise UserError("the load generator wrk is not installed", "apt-get install wrk")
    with tempfile.TemporaryDirectory() as scratch:
        script, lines = Path(scratch) / "script.lua", Path(scratch) / "bodies.jsonl"
        script.write_text(SCRIPT)
        lines.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{max(1, round(seconds))}s", "-s", str(script), url]
        done = subprocess.run(
            command,
            env={**os.environ, "BODIES": str(lines)},
            capture_output=True,
            text=True,
            check=False,
        )
    output = done.stdout.strip().splitlines()
    if done.returncode or not output:
        raise UserError(f"wrk failed on {url}: {(done.stdout + done.stderr).strip()[-500:]}")
    figures = json.loads(output[-1])
    rate = round(figures["requests"] / figures["seconds"], 1)
    return Sample(
        rate, round(figures["p50_ms"], 3), round(figures["p99_ms"], 3), figures["failures"]
    )


def encode_post(url: str, body: object) -> bytes:
    """Return a POST request with a JSON body, or with a body of bytes."""
    parts = urlsplit(url)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Return status, body, and whether the server closes the connection after it.

    Raises:
        asyncio.IncompleteReadError, ConnectionError: the connection was lost before.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = 0
    if b"\r\ncontent-length:" in head:
        length = int(head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    return int(head[9:12]), body, b"\r\nconnection: close\r\n" in head


# Whether the answer to the request with this index is correct: index, status, body.
Check = Callable[[int, int, bytes], bool]


@dataclass
class Loops:
    """Run closed loops over keep-alive connections; `stop` lets each finish its request.

    Attributes:
        requests: bytes that are sent in turn.
        check: returns whether an answer is correct.
        reconnect: whether a loop whose connection ended or was refused opens another.
        latencies: seconds by status.
        wrong: answers that `check` rejects.
        cut: requests whose connection was lost before their answer was complete.
        refused: connections that could not be opened.
    """

    url: str
    requests: Sequence[bytes]
    check: Check = lambda index, status, body: status == 200
    reconnect: bool = True
    latencies: dict[int, list[float]] = field(default_factory=dict)
    wrong: int = 0
    cut: int = 0
    refused: int = 0
    _next: int = 0
    _is_stopped: bool = False

    @property
    def statuses(self) -> Counter[int]:
        """Count the answers by status."""
        return Counter({status: len(values) for status, values in self.latencies.items()})

    @property
    def failures(self) -> int:
        """Count wrong answers and lost or refused connections."""
        return self.wrong + self.cut + self.refused

    def percentile_ms(self, status: int, share: float = 0.99) -> float:
        """Return a percentile of the latency of answers with a status; 0 without any."""
        ordered = sorted(self.latencies.get(status, []))
        index = min(len(ordered) - 1, int(share * len(ordered)))
        return round(ordered[index] * 1e3, 1) if ordered else 0.0

    def stop(self) -> None:
        """Send no more requests."""
        self._is_stopped = True

    async def run(self, connections: int, seconds: float | None = None) -> "Loops":
        """Run until `stop`, or for a time."""
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.stop)
        await asyncio.gather(*(self._loop() for _ in range(connections)))
        return self

    async def _loop(self) -> None:
        address = urlsplit(self.url)
        is_first = True
        while not self._is_stopped and (is_first or self.reconnect):
            is_first = False
            try:
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            try:
                while not self._is_stopped and await self._ask(reader, writer):
                    pass
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one request; return False when the connection is over."""
        if reader.at_eof():
            return False
        index = self._next % len(self.requests)
        self._next += 1
        started = time.perf_counter()
        writer.write(self.requests[index])
        try:
            status, body, is_closing = await read_response(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut += 1
            return False
        self.latencies.setdefault(status, []).append(time.perf_counter() - started)
        self.wrong += not self.check(index, status, body)
        return not is_closing
