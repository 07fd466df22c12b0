"""The versions that passed here, on this disk: what a service starts from when nobody answers.

One small JSON file per model URI and tracking server, in the folder of the bundles, replaced
atomically. The bundle's digest is checked again before a remembered version serves.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry.pull import Pulled, is_intact

log = logging.getLogger(__name__)

KEPT = 10


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
        key = hashlib.sha256(f"{tracking_uri.rstrip('/')} {model_uri}".encode()).hexdigest()[:12]
        self.path = folder / f"verified-{key}.json"

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
        with self._locked():
            others = [
                one
                for one in self.entries()
                if (one.version, one.bundle_sha256) != (pulled.version, pulled.bundle_sha256)
            ]
            draft = self.path.with_suffix(".draft")
            content = [asdict(one) for one in [*others, entry][-KEPT:]]
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self.path)

    def entries(self) -> list[Remembered]:
        """All of them; none if there is no file, or if what is there is not one of ours."""
        try:
            if self.path.stat().st_uid != os.getuid():  # the default folder is in /tmp
                log.warning("%s is another user's: ignored", self.path)
                return []
            return [Remembered(**one) for one in json.loads(self.path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is not readable as verified versions (%r): ignored", self.path, error)
            return []

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

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Several workers, or services, may share the folder.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
