"""Equations that were answered wrongly, kept for the next training.

One JSON object a line: `equation`, `answer` (the model's), `expected`, `version`, `bundle_sha256`,
`time`. `make hard-cases` turns the file into the CSV that `generate` reads (docs/operations.md).
"""

import fcntl
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from serving.tally import Tally

log = logging.getLogger(__name__)


class HardCases:
    """Appends to `path`. At `limit` lines the file becomes `<path>.1`, in place of an older one.

    So at most twice `limit` are kept, the latest among them. The same equation of the same version
    is kept once a process and file.
    """

    def __init__(self, path: Path, limit: int):
        self.path, self._limit = path, limit
        self._kept: set[tuple[str, str]] = set()
        self._lines: int | None = None  # of the file; counted when the first one is added
        self._broken = False

    def keep(self, tally: Tally, equation: Equation, answer: Answer, expected: str) -> None:
        """Write one wrong answer down; a disk that does not take it is said in the log, once."""
        key = (tally.bundle_sha256, str(equation))
        if key in self._kept:
            return
        entry = {
            "equation": str(equation),
            "answer": answer.text,
            "expected": expected,
            "version": tally.version,
            "bundle_sha256": tally.bundle_sha256,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            self._append(json.dumps(entry) + "\n")
        except OSError as error:
            if not self._broken:
                log.error("hard cases are not kept: %s (%s)", self.path, error.strerror)
            self._broken = True
            return
        self._broken = False
        self._kept.add(key)

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._lines is None:
            self._lines = len(self.path.read_bytes().splitlines()) if self.path.exists() else 0
        if self._lines >= self._limit:
            self._kept.clear()
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
            self._lines = 0
        with self.path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of services that were given the same file
            file.write(line)
        self._lines += 1
