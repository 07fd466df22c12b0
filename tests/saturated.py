"""64 connections that ask without end, counted: what they see when the service is told to end."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.serving_process import question

CONNECTIONS = 64


@dataclass
class Count:
    """What 64 clients saw."""

    answered: int = 0
    closed_politely: int = 0
    cut: int = 0
    wrong: int = 0


async def read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def client(port: int, number: int, pause: float, count: Count) -> None:
    """Ask without end on one connection, until told `Connection: close`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = question(f"{number}+{number}=")
    while True:
        try:
            writer.write(raw)
            head, body = await read(reader)
        except (OSError, asyncio.IncompleteReadError):
            count.cut += 1
            break
        count.answered += 1
        if not head.startswith(b"HTTP/1.1 200 ") or json.loads(body)["predicted_answer"] != str(
            2 * number
        ):
            count.wrong += 1
        if b"connection: close" in head.lower():
            count.closed_politely += 1
            break
        await asyncio.sleep(pause)
    writer.close()


async def under_load(port: int, end: Callable[[], object], pause: float = 0.0) -> Count:
    """64 clients without pause; after a moment `end` is called, beside them."""
    count = Count()
    clients = [
        asyncio.create_task(client(port, number, pause, count)) for number in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.7)
    await asyncio.to_thread(end)
    await asyncio.wait(clients, timeout=15)
    return count
