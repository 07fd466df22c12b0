"""Closed loops over raw connections, in Python: what `wrk` cannot tell, this can.

    python -m benchmarks.serving_client URL BODIES.jsonl CONNECTIONS SECONDS

An HTTP library costs several times what the service does, so requests are bytes made in advance and
answers are cut at their Content-Length.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

# Status, body, seconds; of the question with this index.
Seen = Callable[[int, int, bytes, float], None]


@dataclass
class Tally:
    """What closed loops saw.

    Attributes:
        seconds: latency of each answer.
        statuses: answers by status.
        cut: requests whose connection was lost before their answer was whole.
        refused: connections that could not be made.
        closed: connections that the server closed between two requests, having said so or not.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    cut: int = 0
    refused: int = 0
    closed: int = 0

    @property
    def answers(self) -> int:
        """Answers of any status."""
        return len(self.seconds)

    @property
    def failures(self) -> int:
        """Everything that was not a 200."""
        return self.answers - self.statuses.get(200, 0) + self.cut + self.refused

    def percentile(self, share: float) -> float:
        """A percentile of the latency, seconds; 0 without answers."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def post(url: str, body: bytes, headers: str = "") -> bytes:
    """The bytes of a POST request with a JSON body."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the server closes the connection after it.

    Raises:
        asyncio.IncompleteReadError, ConnectionError: the connection was lost before.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    length, closing, chunked = 0, False, False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-length":
            length = int(value)
        elif name == b"connection":
            closing = value.strip().lower() == b"close"
        elif name == b"transfer-encoding":
            chunked = b"chunked" in value.lower()
    status = int(head[9:12])
    if not chunked:
        return status, await reader.readexactly(length) if length else b"", closing
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return status, body, closing


class Loops:
    """Closed loops on one server; `stop()` lets each finish the request it is in."""

    def __init__(
        self,
        url: str,
        requests: Sequence[bytes],
        seen: Seen | None = None,
        reconnect: bool = True,
    ):
        """Args:
        url: of the server; the path stands in the requests.
        requests: bytes that are sent in turn.
        seen: told of every answer.
        reconnect: whether a loop whose connection ended, or was refused, goes on with another.
        """
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 80
        self._requests = requests
        self._seen = seen
        self._next = 0
        self._reconnect = reconnect
        self._stopped = False
        self.tally = Tally()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True

    async def run(self, connections: int, seconds: float | None = None) -> Tally:
        """Until `stop()`, or for a time."""
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.stop)
        await asyncio.gather(*(self._loop() for _ in range(connections)))
        return self.tally

    async def _loop(self) -> None:
        again = True
        while again and not self._stopped:
            again = self._reconnect
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except OSError:
                self.tally.refused += 1
                await asyncio.sleep(0.05)
                continue
            try:
                while not self._stopped and await self._one(reader, writer):
                    pass
            finally:
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is over."""
        index = self._next % len(self._requests)
        self._next += 1
        if reader.at_eof():
            self.tally.closed += 1
            return False
        started = time.perf_counter()
        writer.write(self._requests[index])
        try:
            status, body, closing = await read_answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.tally.cut += 1
            return False
        passed = time.perf_counter() - started
        self.tally.seconds.append(passed)
        self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
        if self._seen is not None:
            self._seen(index, status, body, passed)
        self.tally.closed += closing
        return not closing


def main() -> None:
    url, bodies, connections, seconds = sys.argv[1:5]
    lines = Path(bodies).read_bytes().splitlines()
    loops = Loops(url, [post(url, line) for line in lines])
    started = time.perf_counter()
    tally = asyncio.run(loops.run(int(connections), float(seconds)))
    figures = {
        "requests": tally.answers,
        "seconds": time.perf_counter() - started,
        "p50_ms": statistics.median(tally.seconds or [0.0]) * 1e3,
        "p99_ms": tally.percentile(0.99) * 1e3,
        "failures": tally.failures,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
