"""What processes of one service note on their disk for each other, and for after a restart.

A small JSON list per file, in the folder of the bundles, replaced atomically under a lock: several
workers, or services, may share the folder.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

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
        entry: type[Entry],
    ):
        key = hashlib.sha256(f"{tracking_uri.rstrip('/')} {model_uri}".encode()).hexdigest()[:12]
        self.path = folder / f"{name}-{key}.json"
        self._entries: TypeAdapter[list[Entry]] = TypeAdapter(list[entry])  # type: ignore[valid-type]

    def read(self) -> list[Entry]:
        """All entries; none if there is no file, or if what is there is not one of ours."""
        try:
            if self.path.stat().st_uid != os.getuid():  # the default folder is in /tmp
                log.warning("%s is another user's: ignored", self.path)
                return []
            return self._entries.validate_json(self.path.read_bytes(), strict=True)
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            why = " ".join(str(error).split())[:200]
            log.warning("%s is not readable as notes (%s): ignored", self.path, why)
            return []

    def change(self, changed: Callable[[list[Entry]], list[Entry]]) -> None:
        """Replace the entries by what `changed` makes of them; raises OSError."""
        with self._locked():
            before = self.read()
            after = changed(before)
            if after == before:
                return
            draft = self.path.with_suffix(".draft")
            draft.write_bytes(self._entries.dump_json(after, indent=1) + b"\n")
            os.replace(draft, self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
