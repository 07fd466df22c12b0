"""What processes of one service note on their disk for each other, and for after a restart.

A small JSON list per file, in the folder of the bundles, replaced atomically under a lock: several
workers, or services, may share the folder.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

Entry = TypeVar("Entry")


class Notes(Generic[Entry]):
    """The notes about one model URI of one tracking server.

    Args:
        folder: made when the first note is written.
        name: what is noted; the file is `<name>-<digest of the two addresses>.json`.
        entry: the dataclass of an entry.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        model_uri: str,
        tracking_uri: str,
        entry: Callable[..., Entry],
    ):
        key = hashlib.sha256(f"{tracking_uri.rstrip('/')} {model_uri}".encode()).hexdigest()[:12]
        self.path = folder / f"{name}-{key}.json"
        self._entry = entry

    def read(self) -> list[Entry]:
        """All entries; none if there is no file, or if what is there is not one of ours."""
        try:
            if self.path.stat().st_uid != os.getuid():  # the default folder is in /tmp
                log.warning("%s is another user's: ignored", self.path)
                return []
            return [self._entry(**one) for one in json.loads(self.path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is not readable as notes (%r): ignored", self.path, error)
            return []

    def change(self, changed: Callable[[list[Entry]], list[Entry]]) -> None:
        """Replace the entries by what `changed` makes of them; raises OSError."""
        with self._locked():
            before = self.read()
            after = changed(before)
            if after == before:
                return
            draft = self.path.with_suffix(".draft")
            content: list[dict[str, Any]] = [asdict(one) for one in after]  # type: ignore[call-overload]
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
