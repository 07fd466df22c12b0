"""Ask git for the commit of a workspace, and for the commit that holds a dvc.lock."""

import subprocess
from pathlib import Path

from arithmetic.errors import InvalidParamsError
from registry.dvc_lock import DvcLock, md5_of_bytes, parse_lock, parse_yaml
from registry.exceptions import StaleWorkspaceError


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


def is_dirty(root: Path) -> bool:
    """Return whether the tree differs from its commit."""
    return bool(git(root, "status", "--porcelain", "--untracked-files=no"))


def find_commit(root: Path, lock: DvcLock, first: str | None = None) -> str | None:
    """Return the commit whose dvc.lock has the digest of `lock`; DVC's experiments count too.

    Args:
        root: the repository.
        lock: the lock to find.
        first: a commit to look at before all others that changed dvc.lock, newest first.
    """
    listed = git(root, "log", "--all", "--format=%H", "--", "dvc.lock") or b""
    for commit in [*filter(None, [first]), *listed.decode().split()]:
        content = git(root, "show", f"{commit}:dvc.lock")
        # Parsing is slow, so what cannot be it is passed over: each MD5 must be there.
        if content and all(str(md5).encode() in content for md5 in lock.merged("outs").values()):
            try:
                found = parse_lock(parse_yaml(content.decode(), "dvc.lock"))
            except (InvalidParamsError, StaleWorkspaceError, UnicodeDecodeError):
                continue
            if found.digest == lock.digest:
                return commit
    return None


def changed_files(root: Path, commit: str, lock: DvcLock) -> tuple[int, list[str]]:
    """Compare the code that `lock` depends on with a commit: files compared, and those changed."""
    outs = lock.merged("outs")
    code = {path: md5 for path, md5 in lock.merged("deps").items() if path not in outs}
    contents = {path: git(root, "show", f"{commit}:{path}") for path in code}
    compared = {path: blob for path, blob in contents.items() if not code[path].endswith(".dir")}
    changed = [path for path, blob in compared.items() if md5_of_bytes(blob or b"") != code[path]]
    return len(compared), changed
