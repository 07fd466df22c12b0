"""The versions that passed here, on this disk: what a service starts from when nobody answers.

The bundle's digest is checked again before a remembered version serves. What is remembered no more
is deleted, so that the folder of the bundles does not grow for ever.
"""

import json
import logging
import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry import inputs
from registry.pull import Pulled, is_intact
from serving.notes import Notes

log = logging.getLogger(__name__)

KEPT = 10
# Of a download whose process was killed, or of a version that is not remembered; both take seconds.
ABANDONED_SECONDS = 3600.0
# What `registry.pull` calls a folder: name, version, beginning of the digest.
_BUNDLE = re.compile(r".+-[0-9]+-[0-9a-f]{12}")


@dataclass(frozen=True)
class Remembered:
    """A version that was verified, and when."""

    name: str
    version: str
    bundle: str
    bundle_sha256: str
    errors: int
    verified_at: str


class Memory:
    """The verified versions of one model URI, the latest last."""

    def __init__(self, folder: Path, model_uri: str, tracking_uri: str):
        self._folder = folder
        self._notes = Notes(folder, "verified", model_uri, tracking_uri, Remembered)
        self.path = self._notes.path

    def remember(self, pulled: Pulled) -> None:
        """Note that a version passed; the same one again moves to the end.

        Raises:
            OSError: the disk is full or not writable.
        """
        entry = Remembered(
            pulled.name,
            pulled.version,
            str(pulled.bundle.resolve()),
            pulled.bundle_sha256,
            pulled.errors,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        forgotten: list[Remembered] = []

        def with_entry(entries: list[Remembered]) -> list[Remembered]:
            others = [
                one
                for one in entries
                if (one.version, one.bundle_sha256) != (pulled.version, pulled.bundle_sha256)
            ]
            kept = [*others, entry]
            forgotten.extend(kept[:-KEPT])
            return kept[-KEPT:]

        self._notes.change(with_entry)
        self._clean([Path(one.bundle) for one in forgotten])

    def forget(self, identity: tuple[str, str]) -> None:
        """Start from this version and digest no more; its files stay, the alias may come back."""
        try:
            self._notes.change(
                lambda entries: [
                    one for one in entries if (one.version, one.bundle_sha256) != identity
                ]
            )
        except OSError as error:
            log.error("version %s stays remembered (%s)", identity[0], error.strerror)

    def entries(self) -> list[Remembered]:
        """All of them; none if there is no file, or if what is there is not one of ours."""
        return self._notes.read()

    def latest(self, refused: set[tuple[str, str]]) -> list[Pulled]:
        """Those whose files still have their digest, the latest first, without the refused."""
        found = []
        for one in reversed(self.entries()):
            if (one.version, one.bundle_sha256) in refused:
                continue
            if is_intact(Path(one.bundle), one.bundle_sha256):
                found.append(
                    Pulled(one.name, one.version, Path(one.bundle), one.bundle_sha256, one.errors)
                )
            else:
                log.warning(
                    "version %s on this disk is damaged or gone: %s", one.version, one.bundle
                )
        return found

    def _clean(self, forgotten: list[Path]) -> None:
        """Delete bundles that nobody remembers, and downloads that nobody finished."""
        ours = self._folder.resolve()
        try:
            used = {bundle for notes in ours.glob("verified-*.json") for bundle in _bundles(notes)}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("bundles in %s are not cleaned: other notes do not read (%r)", ours, error)
            return
        unused = [one for one in forgotten if one.parent == ours]
        # And those that did not pass, or were withdrawn, when nobody can be at them any more.
        unused += [one for one in ours.iterdir() if _BUNDLE.fullmatch(one.name) and _is_old(one)]
        unused = [one for one in dict.fromkeys(unused) if str(one) not in used]
        unused += [inputs.beside(one) for one in unused]
        unused += [draft for draft in ours.glob(".pull-*") if _is_old(draft)]
        for one in unused:
            log.info("deleting %s: nothing needs it any more", one)
            if one.is_dir():
                shutil.rmtree(one, ignore_errors=True)  # another worker may be at the same
            else:
                one.unlink(missing_ok=True)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:  # another worker has just finished it
        return False


def _bundles(notes: Path) -> set[str]:
    """What another service with the same folder remembers."""
    return {str(one["bundle"]) for one in json.loads(notes.read_bytes())}
