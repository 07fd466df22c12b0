"""Recordings that the store did not take, kept until `registry.deliver` brings them.

`.owed/0001-<digest>/` at the repository's root (ignored by git and DVC) holds all that a recording
needs: the workspace may have gone on to other params, data and code by then.

    dvc.lock dvc.yaml params.yaml bundle/ metrics/    the workspace
    code/                                             what the version carries to answer
    origin.json owed.json                             commit, times, data sets; digests and store

An entry appears by one rename and goes by one rename, so a kill leaves it whole or not at all. The
numbers keep the order: the certificate of a bundle is its latest evaluation.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arithmetic.errors import Problem
from registry import origin, store, workspace
from registry.errors import RegistryProblem
from registry.origin import Origin
from registry.workspace import Workspace

FOLDER = ".owed"
_KEPT = ("dvc.lock", "dvc.yaml", "params.yaml", "bundle", "metrics")
_ENTRY = re.compile(r"[0-9]{4,}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Entry:
    """A kept recording.

    Attributes:
        folder: where it is.
        run_digest, bundle_sha256: what it is of.
        tracking_uri: the store that did not take it.
    """

    folder: Path
    run_digest: str
    bundle_sha256: str
    tracking_uri: str

    @property
    def name(self) -> str:
        """As people are told of it: `run 1a2b3c4d5e6f (bundle 6f5e4d3c2b1a)`."""
        return f"run {self.run_digest[:12]} (bundle {self.bundle_sha256[:12]})"


def keep(found: Workspace) -> Entry:
    """Keep a copy of the workspace and its origin; a repetition of the latest adds nothing.

    Call it with the lock of `registry.record` held.

    Raises:
        RegistryProblem: the copy cannot be written, or files changed while they were copied.
    """
    box = store.root(found.root) / FOLDER
    uri = store.tracking_uri(found.root)
    there = _folders(box)
    if there:
        latest = read_entry(there[-1])
        if (latest.run_digest, latest.tracking_uri) == (found.run_digest, uri):
            return latest
    try:
        box.mkdir(mode=0o700, exist_ok=True)  # the address of a server may hold a password
        for draft in (*box.glob(".draft-*"), *box.glob(".done-*")):
            shutil.rmtree(draft)  # of a killed process: whoever writes holds the lock
        draft = Path(tempfile.mkdtemp(dir=box, prefix=".draft-"))
        _write(found, uri, draft)
        number = 1 + max((int(folder.name.split("-")[0]) for folder in there), default=0)
        target = box / f"{number:04}-{found.run_digest[:12]}"
        os.replace(draft, target)
    except (OSError, shutil.Error) as error:
        raise RegistryProblem(
            f"the recording cannot be kept in {box} ({error.strerror or error}); make room and run "
            "`dvc repro` again, before params.yaml is changed"
        ) from error
    return read_entry(target)


def count(root: Path) -> int:
    """How many recordings are kept, damaged ones too."""
    return len(_folders(store.root(root) / FOLDER))


def entries(root: Path) -> list[Entry]:
    """All kept recordings, oldest first; raises RegistryProblem naming a damaged one."""
    return [read_entry(folder) for folder in _folders(store.root(root) / FOLDER)]


def read_entry(folder: Path) -> Entry:
    """One kept recording; raises RegistryProblem if it is damaged."""
    try:
        content = json.loads((folder / "owed.json").read_bytes())
        return Entry(
            folder, content["run_digest"], content["bundle_sha256"], content["tracking_uri"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, "owed.json does not read") from error


@contextmanager
def opened(entry: Entry) -> Iterator[tuple[Workspace, Origin]]:
    """The workspace and the origin of a kept recording, checked.

    Raises:
        RegistryProblem: the copy is damaged.
    """
    try:
        found = workspace.parse(entry.folder)
        for path, md5 in found.outs.items():
            if path.startswith(("bundle/", "metrics/")):
                workspace.check_file(entry.folder, path, md5)
        workspace.check_evaluation(found)
        kept = origin.load((entry.folder / "origin.json").read_text("utf-8"), entry.folder / "code")
    except (Problem, OSError, ValueError, TypeError) as error:
        raise _damaged(entry.folder, str(error)) from error
    if (found.run_digest, found.bundle_sha256) != (entry.run_digest, entry.bundle_sha256):
        raise _damaged(
            entry.folder,
            f"it holds run {found.run_digest[:12]} with bundle {found.bundle_sha256[:12]}, and "
            f"{entry.run_digest[:12]} with {entry.bundle_sha256[:12]} was kept",
        )
    yield found, kept


def remove(entry: Entry) -> None:
    """Delete a kept recording that was delivered."""
    gone = entry.folder.with_name(f".done-{entry.folder.name}")
    os.replace(entry.folder, gone)
    shutil.rmtree(gone)


def _write(found: Workspace, uri: str, draft: Path) -> None:
    (draft / "code").mkdir()
    for name in _KEPT:
        source = found.root / name
        if source.is_dir():
            shutil.copytree(source, draft / name)
        elif source.is_file():
            shutil.copyfile(source, draft / name)
    observed = origin.observe(found, draft / "code")
    (draft / "origin.json").write_text(origin.dump(observed), encoding="utf-8")
    content = {
        "run_digest": found.run_digest,
        "bundle_sha256": found.bundle_sha256,
        "tracking_uri": uri,
    }
    (draft / "owed.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    try:
        with opened(Entry(draft, found.run_digest, found.bundle_sha256, uri)):
            pass
    except RegistryProblem as problem:  # what was edited meanwhile is not what was checked before
        raise RegistryProblem(
            "files were changed while the recording was kept; run `dvc repro` again"
        ) from problem
    for path in [*draft.rglob("*"), draft]:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _folders(box: Path) -> list[Path]:
    there = (path for path in box.glob("*") if _ENTRY.fullmatch(path.name))
    return sorted(there, key=lambda path: int(path.name.split("-")[0]))


def _damaged(folder: Path, why: str) -> RegistryProblem:
    return RegistryProblem(
        f"the kept recording {folder} is damaged ({why}); delete the folder, and make its version "
        "again from its commit if you need it"
    )
