"""Versions that were taken out of service here: known to every worker, and after a restart."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.notes import Notes

log = logging.getLogger(__name__)

Identity = tuple[str, str]  # version, digest


@dataclass(frozen=True)
class Withdrawal:
    """A version that is not to be served, why, and since when."""

    version: str
    bundle_sha256: str
    reason: str
    at: str


class Withdrawals:
    """Of one model URI, until its alias has named another version."""

    def __init__(self, folder: Path, model_uri: str, tracking_uri: str):
        self._notes = Notes(folder, "withdrawn", model_uri, tracking_uri, Withdrawal)
        self._seen: tuple[int, int] | None = None
        self._reasons: dict[Identity, str] = {}
        self._unwritten: dict[Identity, str] = {}

    def add(self, identity: Identity, reason: str) -> bool:
        """Note it; whether this is the first to do so.

        A disk that takes no notes is said in the log, and this process knows anyway.
        """
        entry = Withdrawal(*identity, reason, datetime.now(UTC).isoformat(timespec="seconds"))
        first = True

        def with_entry(entries: list[Withdrawal]) -> list[Withdrawal]:
            nonlocal first
            first = all(_identity(one) != identity for one in entries)
            return [*entries, entry] if first else entries

        try:
            self._notes.change(with_entry)
        except OSError as error:
            log.error("other workers are not told of %s (%s)", reason, error.strerror)
            self._unwritten[identity] = reason
        return first

    def keep_only(self, named: Identity) -> None:
        """The alias has moved to `named`: the others may be tried when it comes back."""
        if all(one == named for one in self.read()):
            return
        self._unwritten = {one: why for one, why in self._unwritten.items() if one == named}
        try:
            self._notes.change(lambda entries: [one for one in entries if _identity(one) == named])
        except OSError as error:
            log.error("withdrawn versions stay so: %s (%s)", self._notes.path, error.strerror)

    def read(self) -> dict[Identity, str]:
        """Version and digest to the reason. Cheap where nothing has changed."""
        try:
            now = self._notes.path.stat()
            seen = now.st_mtime_ns, now.st_ino
        except OSError:
            seen, self._reasons = None, {}
        if seen is not None and seen != self._seen:
            self._reasons = {_identity(one): one.reason for one in self._notes.read()}
        self._seen = seen
        return {**self._reasons, **self._unwritten}


def _identity(one: Withdrawal) -> Identity:
    return one.version, one.bundle_sha256
