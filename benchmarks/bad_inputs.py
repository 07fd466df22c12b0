"""Write bad requests as bytes, with the statuses that are correct for each.

An HTTP library would refuse to send some of these, or would repair them.
"""

import asyncio
import json
import random
from typing import NamedTuple

from benchmarks.serving_load import encode_post, read_response

CLOSED = 0  # the connection is closed without an answer
NO_ANSWER = -1  # nothing within the time limit
PREDICT = "http://x/predict"
GOOD = b'{"equation": "1+1="}'

# Texts that are not equations, and JSON that is not a question.
NO_EQUATIONS: tuple[object, ...] = (
    *("", "=", "1+1", "1+=", "+1=", "1++1=", "1+1==", "1 + 1=", "1+1=\n", "a+b=", "1^1="),
    *("٣+٤=", "\uff11+1=", "⁵+1=", "-1+1=", "1.5+1=", "1e2+1=", "1000+1=", "0001000+1="),
    *("9" * 60 + "+1=", "1" * 65, "\x00", "\ud800+1=", "1+1=;DROP TABLE", "🤖+🤖="),
    *(None, 5, True, 1e308, [], {}, ["1+1="], {"equation": "1+1="}),
)
NO_QUESTIONS = (
    *(b"", b"[]", b"null", b"5", b"{}", b'"1+1="', b'{"equatoin": "1+1="}', b"{'equation': '1'}"),
    *(b'{"equation": "1+1=", "x": 1}', b'{"equation": NaN}', b'{"equation": "1+1="', b"\xff\xfe"),
    *(b"[" * 20_000, b'{"a":' * 20_000, b'{"equation": ' + b"9" * 5_000 + b"}"),
)


class BadInput(NamedTuple):
    """Hold a request and the statuses that are correct for it."""

    name: str
    content: bytes
    statuses: tuple[int, ...]


def list_bad_inputs() -> list[BadInput]:
    """Return every kind of bad request that has a name."""
    inputs = [
        BadInput(f"equation {text!a}"[:40], encode_post(PREDICT, {"equation": text}), (422,))
        for text in NO_EQUATIONS
    ]
    inputs += [BadInput(f"body {b!a}"[:40], encode_post(PREDICT, b), (422,)) for b in NO_QUESTIONS]
    good = encode_post(PREDICT, GOOD)
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    broken = (400, CLOSED)
    return [
        *inputs,
        BadInput("text/plain", good.replace(b"application/json", b"text/plain"), (415,)),
        BadInput("unknown path", good.replace(b"/predict", b"/predictions"), (404,)),
        BadInput("climbing path", good.replace(b"/predict", b"/../../etc/passwd"), (404, 400)),
        BadInput("wrong method", good.replace(b"POST", b"DELETE"), (405,)),
        BadInput("unknown method", good.replace(b"POST", b"FROBNICATE"), (400, 405, CLOSED)),
        BadInput("a body of 8 MB", encode_post(PREDICT, b" " * 8_000_000), (413,)),
        BadInput("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", broken),
        BadInput("header without colon", b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n", broken),
        BadInput("negative length", good.replace(b"Length: 20", b"Length: -5"), broken),
        BadInput("broken chunk", chunked + b"zz\r\n", broken),
    ]


def damage_bodies(count: int, seed: int) -> list[bytes]:
    """Return a good body with bytes changed, dropped or doubled; some stay good."""
    rng, bodies = random.Random(seed), []
    for _ in range(count):
        body = bytearray(b'{"equation": "23+45=", "steps": false}')
        for _ in range(rng.randint(1, 6)):
            place, change = rng.randrange(len(body)), rng.randrange(3)
            if change == 0:
                body[place] = rng.randrange(256)
            elif change == 1 and len(body) > 1:
                del body[place]
            else:
                body[place:place] = body[place : place + rng.randint(1, 8)]
        bodies.append(bytes(body))
    return bodies


async def get_status(port: int, content: bytes, seconds: float = 10.0) -> int:
    """Return the status of the answer, CLOSED or NO_ANSWER."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        status, _, _ = await asyncio.wait_for(read_response(reader), seconds)
        return status
    except (asyncio.IncompleteReadError, ConnectionError):
        return CLOSED
    except TimeoutError:
        return NO_ANSWER
    finally:
        writer.close()


async def disturb(port: int) -> int:
    """Stop in the middle of requests, or leave before the answers; count the clients."""
    request = encode_post(PREDICT, json.loads(GOOD))
    writers = []
    for length in range(1, len(request), 7):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:length])
        writers.append(writer)
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request * 5)
        writer.transport.abort()
    await asyncio.sleep(1)
    for writer in writers:
        writer.close()
    return len(writers) + 20
