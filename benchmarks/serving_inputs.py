"""Bad input as bytes on a connection, and the statuses that are right for each.

What an HTTP library would refuse to send, or would mend, is sent all the same.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.serving_client import read_answer

JSON = "Content-Type: application/json\r\n"


@dataclass(frozen=True)
class Bad:
    """One bad request.

    Attributes:
        name: what is wrong.
        content: the bytes.
        right: statuses; 0 is a connection that is closed without an answer.
    """

    name: str
    content: bytes
    right: tuple[int, ...]


def request(
    body: bytes, headers: str = JSON, path: str = "/predict", method: str = "POST"
) -> bytes:
    """A whole request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def asking(equation: object) -> bytes:
    """A request for an equation, which may be anything."""
    return request(json.dumps({"equation": equation}).encode())


# Texts that are no equations, and JSON that is no question: 422 with a reason.
REFUSED: tuple[object, ...] = (
    *("", "=", "1+1", "1+=", "+1=", "1++1=", "1+1==", "1 + 1=", "1+1=\n", "a+b=", "1^1="),
    *("٣+٤=", "\uff11+1=", "⁵+1=", "-1+1=", "1.5+1=", "1e2+1=", "1000+1=", "0001000+1="),
    *("9" * 60 + "+1=", "1" * 65, "\x00", "\ud800+1=", "1+1=;DROP TABLE", "🤖+🤖="),
    *(None, 5, True, 1e308, [], {}, ["1+1="], {"equation": "1+1="}),
)
NO_QUESTIONS = (
    b"[]",
    b"null",
    b"5",
    b'"1+1="',
    b"{}",
    b'{"equatoin": "1+1="}',
    b'{"equation": "1+1=", "extra": 1}',
    b'{"equation": NaN}',
    b'{"equation": "1+1="',
    b"{'equation': '1+1='}",
    b"",
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b'{"equation": ' + b"9" * 5_000 + b"}",
)


def handmade() -> list[Bad]:
    """Each way to be wrong that somebody has thought of."""
    found = [Bad(f"equation {ascii(value)[:24]}", asking(value), (422,)) for value in REFUSED]
    found += [Bad(f"body {ascii(body)[:24]}", request(body), (400, 422)) for body in NO_QUESTIONS]
    good = b'{"equation": "1+1="}'
    found += [
        Bad("no UTF-8", request(b'{"equation": "\xff\xfe"}'), (400, 422)),
        Bad("wrong content type", request(good, "Content-Type: text/plain\r\n"), (415, 422)),
        Bad("no content type", request(good, ""), (415, 422)),
        Bad("unknown path", request(good, path="/predictions"), (404,)),
        Bad("climbing path", request(good, path="/../../etc/passwd"), (400, 404)),
        Bad("wrong method", request(b"", "", method="DELETE"), (405,)),
        Bad("made-up method", request(b"", "", method="FROBNICATE"), (400, 405)),
        Bad("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, 0)),
        Bad("HTTP/9.9", b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", (200, 400, 505, 0)),
        Bad("header without colon", b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n", (400, 0)),
        Bad("a header of 100 kB", request(good, f"{JSON}X: {'x' * 100_000}\r\n"), (400, 431)),
        Bad("10,000 headers", request(good, JSON + "X: y\r\n" * 10_000), (400, 431)),
        Bad("a body of 8 MB", request(b" " * 8_000_000), (413,)),
        Bad(
            "negative length",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            (400, 0),
        ),
        Bad(
            "two lengths",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            (400, 0),
        ),
        Bad(
            "a broken chunk",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            (400, 0),
        ),
        Bad("tensor of 2^40", _tensor([1 << 20, 1 << 20], []), (400,)),
        Bad("tensor without data", _tensor([1], None), (400,)),
    ]
    return found


def _tensor(shape: list[int], data: object) -> bytes:
    entry = {"name": "equation", "datatype": "BYTES", "shape": shape, "data": data}
    path = "/v2/models/arithmetic-lm/infer"
    return request(json.dumps({"inputs": [entry]}).encode(), path=path)


def random_ones(seed: int) -> Iterator[Bad]:
    """Damaged questions without end: a good body with bytes changed, dropped or doubled."""
    rng = random.Random(seed)
    while True:
        body = bytearray(b'{"equation": "123+456=", "show_work": false}')
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(body))
            change = rng.randrange(3)
            if change == 0:
                body[place] = rng.randrange(256)
            elif change == 1 and len(body) > 1:
                del body[place]
            else:
                body[place:place] = body[place : place + rng.randint(1, 8)]
        # A change may leave it good.
        yield Bad(ascii(bytes(body))[:40], request(bytes(body)), (200, 400, 422))


async def status_of(port: int, bad: Bad) -> int:
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


async def rude_clients(port: int) -> int:
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
