"""Several processes behind one address (WORKERS), for a machine with several cores.

The parent listens and starts the workers, which take connections from its socket. It serves
nothing itself: it starts a worker that died again, hands SIGTERM on and ends when they have. What
belongs to the service and not to a process is in files that the workers share: the counts of
/metrics and the buckets of the rate limit. Only the first worker has the operator's credentials,
so one process alone decides on the alias; the others follow it like everybody.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from arithmetic.errors import Problem
from serving.settings import Settings

log = logging.getLogger(__name__)

# From the parent to its workers: number, socket and folder of what they share.
_NUMBER, _SOCKET, _SHARED = "ARITHMETIC_WORKER", "ARITHMETIC_SOCKET", "ARITHMETIC_SHARED"
_PARENT = "ARITHMETIC_PARENT"  # its process id
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_OPERATOR = ("OPERATOR_TOKEN", "OPERATOR_USERNAME", "OPERATOR_PASSWORD")

# A worker that lives shorter than this has not started; so many one after the other are no
# accident.
SHORT_LIFE_SECONDS = 5.0
MOST_SHORT_LIVES = 3
POLL_SECONDS = 0.05


class WorkersFailed(Problem):
    """Workers end as soon as they have started."""


@dataclass(frozen=True)
class Inherited:
    """What a worker got from its parent."""

    listening: socket.socket
    parent: int
    shared: Path


def inherited() -> Inherited | None:
    """Of a worker; None in a process of its own."""
    if _NUMBER not in os.environ:
        return None
    listening = socket.socket(fileno=int(os.environ[_SOCKET]))
    # Not getppid(): the parent can be gone already, and this would never notice.
    return Inherited(listening, int(os.environ[_PARENT]), Path(os.environ[_SHARED]))


def is_first() -> bool:
    """Whether this is the first of several workers, or the only process."""
    return os.environ.get(_NUMBER, "0") == "0"


class Parent:
    """Runs the workers until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, listening: socket.socket, shared: Path):
        self._settings = settings
        self._listening = listening
        self._shared = shared
        self._workers: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._ending = False

    def run(self) -> None:
        """Raises WorkersFailed if they do not start, or one had to be killed at the end."""
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, self._end)
        (self._shared / "metrics").mkdir()
        short_lives = 0
        for number in range(self._settings.workers):
            if not self._ending:
                self._start(number)
        while not self._ending:
            time.sleep(POLL_SECONDS)
            for number, (process, since) in list(self._workers.items()):
                if process.poll() is None or self._ending:
                    continue
                short = time.monotonic() - since < SHORT_LIFE_SECONDS
                short_lives = short_lives + 1 if short else 0
                log.error("worker %d ended with status %d", number, process.returncode)
                mark_process_dead(process.pid, str(self._shared / "metrics"))
                if short_lives >= MOST_SHORT_LIVES:
                    self._end()
                    self._wait()
                    raise WorkersFailed("the workers end as they start; the log above says why")
                self._start(number)
        if not self._wait():
            raise WorkersFailed("a worker did not end within its grace period and was killed")

    def _start(self, number: int) -> None:
        environment = {
            **os.environ,
            _NUMBER: str(number),
            _PARENT: str(os.getpid()),
            _SOCKET: str(self._listening.fileno()),
            _SHARED: str(self._shared),
            _METRICS: str(self._shared / "metrics"),
        }
        if number:
            for name in [one for one in environment if one.upper() in _OPERATOR]:
                del environment[name]
            # A file of its own: its bound is kept by rewriting it.
            cases = self._settings.hard_cases_file
            environment["HARD_CASES"] = str(cases.with_name(f"{cases.stem}-{number}.jsonl"))
        process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=environment,
            pass_fds=[self._listening.fileno()],
        )
        self._workers[number] = process, time.monotonic()

    def _end(self, *_: object) -> None:
        self._ending = True
        for process, _since in self._workers.values():
            process.terminate()

    def _wait(self) -> bool:
        """Whether all ended by themselves."""
        end = time.monotonic() + self._settings.grace_seconds + 2
        alone = True
        for process, _ in self._workers.values():  # one may have started after the word was given
            process.terminate()
        for process, _ in self._workers.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                alone = False
                process.kill()
                process.wait()
        return alone


def run_workers(settings: Settings, listening: socket.socket) -> None:
    """As many processes as the settings say, until they are told to end."""
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as shared, listening:
        listening.set_inheritable(True)
        Parent(settings, listening, Path(shared)).run()
