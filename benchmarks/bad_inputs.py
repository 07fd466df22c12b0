"""Write bad requests as bytes, with the statuses that are correct for each.

An HTTP library would refuse to send some of these, or would repair them.
"""

import random
from collections.abc import Iterator

from benchmarks.serving_load import encode_post

CLOSED = 0  # the connection is closed without an answer
PATH = "/predict"
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


def list_bad_inputs() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """Yield every kind of bad request: a name, its bytes and the correct statuses."""
    for text in NO_EQUATIONS:
        yield f"equation {text!a}"[:40], encode_post(PATH, {"equation": text}), (422,)
    for body in NO_QUESTIONS:
        yield f"body {body!a}"[:40], encode_post(PATH, body), (422,)
    good = encode_post(PATH, GOOD)
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield "text/plain", good.replace(b"application/json", b"text/plain"), (415,)
    yield "unknown path", good.replace(b"/predict", b"/predictions"), (404,)
    yield "climbing path", good.replace(b"/predict", b"/../../etc/passwd"), (404, 400)
    yield "wrong method", good.replace(b"POST", b"DELETE"), (405,)
    yield "unknown method", good.replace(b"POST", b"FROBNICATE"), (400, 405, CLOSED)
    yield "a body of 8 MB", encode_post(PATH, b" " * 8_000_000), (413,)
    yield "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, CLOSED)
    yield "no colon", b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n", (400, CLOSED)
    yield "negative length", good.replace(b"Length: 20", b"Length: -5"), (400, CLOSED)
    yield "broken chunk", chunked + b"zz\r\n", (400, CLOSED)


def damage_bodies(count: int, seed: int) -> Iterator[bytes]:
    """Yield a good body with bytes changed, dropped or doubled; some stay good."""
    rng = random.Random(seed)
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
        yield bytes(body)
