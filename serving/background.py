"""Work that no request waits for: a bounded queue and one thread."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# After so many equations the thread sleeps for a moment. Without that the event loop would wait for
# the interpreter's switch interval, 5 ms, whenever a request arrives during a long queue's work.
_AT_A_TIME = 64
_PAUSE_SECONDS = 0.0002
_IDLE_SECONDS = 0.02


class Background(Generic[Item]):
    """Does `work` on what is put, in order, in a daemon thread; what does not fit is refused.

    Args:
        name: of the thread, for logs.
        work: on one item; an exception is logged and the next item follows.
        limit: most equations that wait. An item larger than that is refused.
    """

    def __init__(self, name: str, work: Callable[[Item], None], limit: int):
        self._work, self._limit, self._name = work, limit, name
        self._queue: deque[tuple[Item, int]] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """Equations that wait, those being worked on included."""
        return self._waiting

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Item, size: int) -> bool:
        """Never waits; False if there is no room for `size` more."""
        with self._lock:
            if self._waiting + size > self._limit:
                return False
            self._waiting += size
        self._queue.append((item, size))
        return True

    def stop(self, patience: float = 1.0) -> None:
        """Finish what waits, as far as `patience` seconds reach."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _run(self) -> None:
        done = 0
        while self._queue or not self._stopped.is_set():
            if not self._queue:
                self._stopped.wait(_IDLE_SECONDS)
                continue
            item, size = self._queue.popleft()
            try:
                self._work(item)
            except Exception:  # one item's bug must not end the checking of all others
                log.exception("a bug in %s", self._name)
            with self._lock:
                self._waiting -= size
            done += size
            if done >= _AT_A_TIME:
                done = 0
                time.sleep(_PAUSE_SECONDS)
