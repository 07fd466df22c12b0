"""A recorded dvc.lock against the repository: which commit holds it, and the code that it names."""

import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import yaml

from registry import workspace
from registry.digests import md5_of, md5_of_folder
from registry.errors import BrokenLink, StaleWorkspace


@dataclass(frozen=True)
class Holding:
    """A commit whose dvc.lock says of the stages what a run was recorded with.

    Attributes:
        commit: its hash.
        lock: the path of that dvc.lock in the repository.
    """

    commit: str
    lock: str


def find_lock(root: Path, commit: str, run_digest: str, dirty: bool) -> Holding | None:
    """The commit with the recorded dvc.lock: `commit` itself, or one that was made afterwards.

    None if a dirty tree was recorded and its dvc.lock was never committed.

    Raises:
        BrokenLink: the tree was clean and its commit holds another dvc.lock, or is not here.
    """
    if git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise BrokenLink(
            f"the run was recorded at commit {commit}, which is not in this repository; fetch it"
        )
    there = _locks(root, commit)
    for lock, digest in there.items():
        if digest == run_digest:
            return Holding(commit, lock)
    if not dirty:
        found = ", ".join(f"{lock} {digest[:12]}" for lock, digest in there.items()) or "none"
        raise BrokenLink(
            f"the run was recorded from a clean tree with a dvc.lock of digest {run_digest[:12]}, "
            f"and commit {commit[:12]} holds {found}"
        )
    # The usual order: change a param, `dvc repro`, and then commit what came of it.
    later = git(root, "log", "--all", "--format=%H", "--", "dvc.lock", "*/dvc.lock") or b""
    for candidate in later.decode().split():
        for lock, digest in _locks(root, candidate).items():
            if digest == run_digest:
                return Holding(candidate, lock)
    return None


def check_code(root: Path, holding: Holding, stages: dict[str, dict[str, Any]]) -> int:
    """Compare each file of the repository that the stages depend on; how many there were.

    Raises:
        BrokenLink: the commit has another content, or none.
    """
    made = {path for stage in stages.values() for path in stage["outs"]}
    folder = PurePosixPath(holding.lock).parent
    checked = {}
    for name, stage in stages.items():
        for dep, md5 in stage["deps"].items():
            if dep in made or any(dep.startswith(f"{out}/") for out in made):
                continue
            path = normpath(str(folder / dep))
            actual = _md5_in(root, holding.commit, path)
            if actual != md5:
                raise BrokenLink(
                    f"{name} was run with {dep} of MD5 {md5[:12]}, and commit "
                    f"{holding.commit[:12]} holds {actual[:12] if actual else 'no such file'}"
                )
            checked[path] = md5
    return len(checked)


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints, None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # the callers name what is then missing
    return done.stdout


def _locks(root: Path, commit: str) -> dict[str, str]:
    """Path to run digest of each dvc.lock in a commit; one that is no lock has none."""
    names = git(root, "ls-tree", "-r", "--name-only", "--full-tree", commit) or b""
    found = {}
    for path in names.decode(errors="replace").splitlines():
        if PurePosixPath(path).name == "dvc.lock":
            content = git(root, "show", f"{commit}:{path}") or b""
            try:
                stages = workspace.locked_stages(yaml.safe_load(content))
            except (yaml.YAMLError, UnicodeDecodeError, StaleWorkspace):
                continue
            found[path] = workspace.digest(stages)
    return found


def _md5_in(root: Path, commit: str, path: str) -> str | None:
    """MD5 of a file or folder in a commit, as DVC computes it; None if it is not there."""
    kind = git(root, "cat-file", "-t", f"{commit}:{path}")
    if kind is None:
        return None
    if kind.strip() == b"blob":
        content = git(root, "show", f"{commit}:{path}")
        return None if content is None else md5_of(content)
    names = git(root, "ls-tree", "-r", "--name-only", "--full-tree", commit, f"{path}/") or b""
    files = {
        name[len(path) + 1 :]: md5_of(git(root, "show", f"{commit}:{name}") or b"")
        for name in names.decode().splitlines()
    }
    return md5_of_folder(files)
