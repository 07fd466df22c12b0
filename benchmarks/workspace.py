"""Make clones and small copies of the repository, and run programs in them."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from registry.dvc_lock import read_yaml

Changes = dict[str, dict[str, Any]]

# + and - over 0-9: all stages in seconds.
TINY: Changes = {
    "generate": {"max_operand": 9, "train_size": 120, "validation_size": 20, "test_size": 20},
    "train": {
        "batch_sizes": [16],
        "warmup_steps": 10,
        "flat_steps": 50,
        "decay_steps": 90,
        "validate_every": 50,
    },
    "evaluate": {"lowest_margins": 20, "random_sample": 20},
}
FIRST_VERSION = "a4cc569"  # the first version of this repository, with which some compare
# Settings of a shell, or of a make around, that would reach the user's registry, keys or outputs.
USER_SETTINGS = (
    "MLFLOW_",
    "DVC_EXP_",
    "DVC_STAGE",
    "DVC_ROOT",
    "SIGNING_KEY",
    "GIT_",
    "RAY_",
    "MAKE",
)
LEFT_BEHIND = ("docs/", "tests/", "metrics/", "benchmarks/results/", "dvc.lock")
OWN_CACHE = "[cache]\n    dir = cache\n"


def environment(**more: str) -> dict[str, str]:
    """Return this environment with this Python first and without the user's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(USER_SETTINGS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1", **more}


def run(command: list[str], folder: Path = ROOT, **more: str) -> str:
    """Run a command in a folder; return what it prints. Raise UserError if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = f"{done.stdout}{done.stderr}".strip()[-2000:]
        raise UserError(f"`{' '.join(command)}` failed in {folder}: {output}")
    return done.stdout


def time_run(command: list[str], folder: Path = ROOT, **more: str) -> float:
    """Return the seconds of a command. Raise UserError if it fails."""
    started = time.perf_counter()
    run(command, folder, **more)
    return time.perf_counter() - started


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder`; return what it prints."""
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com")
    return run(["git", *identity, *arguments], folder)


def clone(target: Path, commit: str = "HEAD") -> Path:
    """Clone a commit of the repository to `target`, with a DVC cache of its own."""
    revision = git(ROOT, "rev-parse", f"{commit}^{{commit}}").strip()
    git(ROOT, "clone", "-q", "--no-checkout", str(ROOT), str(target))
    git(target, "checkout", "-q", "--detach", revision)
    (target / ".dvc" / "config.local").write_text(OWN_CACHE, encoding="utf-8")
    return target


def merge(params: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """Return params with some keys of some sections changed."""
    return {**params, **{name: {**params[name], **values} for name, values in changes.items()}}


def copy(target: Path, changes: Changes) -> Path:
    """Copy the present files of the repository to `target` with changed params, as a repository.

    Outputs, documents and tests stay behind.
    """
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(LEFT_BEHIND):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    params = merge(read_yaml(ROOT / "params.yaml"), changes)
    (target / "params.yaml").write_text(json.dumps(params, indent=2), encoding="utf-8")
    (target / ".dvc" / "config.local").write_text(OWN_CACHE, encoding="utf-8")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "copy")):
        git(target, *arguments)
    return target
