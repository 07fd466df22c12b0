"""Ask git for the commit of a workspace, and for the commit that holds a dvc.lock."""

import subprocess
from contextlib import suppress
from pathlib import Path

from arithmetic.errors import UserError
from registry.dvc_lock import DvcLock, md5_of_bytes, parse_lock


def git(root: Path, *arguments: str) -> bytes | None:
    """Return the output of a git command; None without git, a repository, or the thing named."""
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def head(root: Path) -> str | None:
    """Return the hash of the checked-out commit, None if there is none."""
    commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return commit.decode().strip() if commit else None


def find_commit(root: Path, lock: DvcLock) -> str | None:
    """Return the newest commit whose dvc.lock has the digest of `lock`, experiments of DVC too."""
    listed = git(root, "log", "--all", "--format=%H", "--", "dvc.lock") or b""
    for commit in listed.decode().split():
        content = git(root, "show", f"{commit}:dvc.lock") or b""
        # Parsing is slow, so what cannot be it is passed over: each MD5 must be there.
        if all(md5.encode() in content for md5 in lock.outs.values()):
            with suppress(UserError):  # not a whole dvc.lock
                if parse_lock(content, "dvc.lock").digest == lock.digest:
                    return commit
    return None


def changed_files(root: Path, commit: str, lock: DvcLock) -> list[str]:
    """Return the files that differ between a commit and what `lock` depends on."""
    outs = lock.outs
    return [
        path
        for path, md5 in lock.deps.items()
        if path not in outs
        and not md5.endswith(".dir")
        and md5_of_bytes(git(root, "show", f"{commit}:{path}") or b"") != md5
    ]
