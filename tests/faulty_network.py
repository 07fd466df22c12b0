"""A TCP relay in front of a real server that can be made to fail as networks and proxies do."""

import contextlib
import socket
import threading
from typing import Literal

Mode = Literal["open", "closed", "silent", "wrong"]

_WRONG = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>hi</p>"


class Relay:
    """Loopback connections to `port`, relayed, or not.

    `mode`: `open` relays; `closed` hangs up at once; `silent` accepts and never answers; `wrong`
    answers 200 with a page of somebody else's. A change ends the connections that are open.
    """

    def __init__(self, port: int):
        self._target = port
        self._mode: Mode = "open"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        own = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{own}"
        self._names = f"127.0.0.1:{own}".encode(), f"127.0.0.1:{port}".encode()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._hang_up()

    def close(self) -> None:
        self._listening.close()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # closed
            if self._mode == "closed":
                client.close()
                continue
            with self._lock:
                self._open.add(client)
            if self._mode == "silent":
                continue
            if self._mode == "wrong":
                threading.Thread(target=self._mislead, args=[client], daemon=True).start()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open.add(server)
            # The server checks the Host header, and the client named the relay.
            here, there = self._names
            for pipe in ((client, server, here, there), (server, client, b"", b"")):
                threading.Thread(target=self._pump, args=pipe, daemon=True).start()

    def _mislead(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while client.recv(65536):
                client.sendall(_WRONG)

    def _pump(self, source: socket.socket, target: socket.socket, old: bytes, new: bytes) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content.replace(old, new) if old else content)
            target.shutdown(socket.SHUT_WR)
