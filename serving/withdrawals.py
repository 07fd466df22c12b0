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

    def add(self, identity: Identity, reason: str) -> None:
        """Note it; a disk that takes no notes is said in the log, and this process knows anyway."""
        entry = Withdrawal(*identity, reason, datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            self._notes.change(
                lambda entries: [one for one in entries if _identity(one) != identity] + [entry]
            )
        except OSError as error:
            log.error("other workers are not told of %s (%s)", reason, error.strerror)

    def keep_only(self, named: Identity) -> None:
        """The alias has moved to `named`: the others may be tried when it comes back."""
        if all(one == named for one in self.read()):
            return
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
            self._seen, self._reasons = None, {}
            return {}
        if seen != self._seen:
            self._reasons = {_identity(one): one.reason for one in self._notes.read()}
            self._seen = seen
        return self._reasons


def _identity(one: Withdrawal) -> Identity:
    return one.version, one.bundle_sha256
