"""What a connection needs to refuse a request and to write an answer."""

import asyncio
import json
import re

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

# What /metrics calls it.
REASONS = {
    400: "no_http",
    408: "too_slow",
    413: "body_too_large",
    431: "head_too_large",
    503: "too_many_connections",
}


class Refused(Exception):
    """A request that is not even parsed to its end."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


class OneWrite:
    """A transport that sends the head of a response together with the first piece of its body.

    Two writes are two system calls and two packets, and wake the client twice.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


def without_upgrade(data: bytes) -> bytes:
    """Without the wish for another protocol, which a server may ignore.

    httptools reads no body behind it, and Java's client wishes for HTTP/2 with every first POST.
    """
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:  # the last line may go on in the next piece: whole lines only
        return _UPGRADE.sub(b"", head)
    return _UPGRADE.sub(b"", head + b"\r\n")[:-2] + blank + body


def refusal_bytes(refusal: Refused) -> bytes:
    """The whole response, the last of its connection."""
    body = json.dumps({"detail": str(refusal)}).encode()
    head = [
        STATUS_LINE[refusal.status],
        b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
        b"retry-after: 1\r\n" if refusal.status == 503 else b"",
        b"connection: close\r\n\r\n",
    ]
    return b"".join(head) + body
