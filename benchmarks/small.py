"""A small configuration (operands 0-9) in a folder of its own: seconds instead of minutes.

The tests and the benchmarks that run the whole pipeline many times use it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

CHANGES: dict[str, dict[str, Any]] = {
    "generate": {"max_operand": 9, "train_size": 120, "validation_size": 20, "test_size": 20},
    "train": {
        "batch_sizes": [16, 16],
        "warmup_steps": 10,
        "flat_steps": 50,
        "decay_steps": 90,
        "validate_every": 50,
    },
    "evaluate": {"lowest_margins": 20, "random_sample": 20},
}


def params() -> dict[str, dict[str, Any]]:
    """params.yaml of the repository with CHANGES."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(
        (ROOT / "params.yaml").read_text(encoding="utf-8")
    )
    for section, values in CHANGES.items():
        content[section] |= values
    return content


def dvc_environment() -> dict[str, str]:
    """This environment, with this Python first, and no tracking server of the user's."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("MLFLOW_TRACKING_URI", None)
    return environment


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` as a fixed author."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *author, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def checkout(target: Path) -> Path:
    """The repository's files as they are now, with the small params, as a git repository.

    Outputs, documents and the second configuration stay behind.
    """
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    left_behind = ("bundle/", "metrics/", "docs/", "four-operations/", "dvc.lock")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(left_behind):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "params.yaml").write_text(yaml.safe_dump(params()), encoding="utf-8")
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "small")
    return target


def files_of(root: Path) -> dict[str, str]:
    """SHA-256 by path of everything that the pipeline wrote in `root`."""
    paths = [root / "dvc.lock"]
    for folder in ("data", "bundle", "metrics"):
        paths += filter(Path.is_file, (root / folder).rglob("*"))
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def store_counts(root: Path) -> dict[str, int]:
    """Runs and versions in the default store of `root`, whole ones and others; which is Production
    (0: none)."""
    code = (
        "import json; from pathlib import Path; from registry.versions import census;"
        "from registry.promote import production; root = Path.cwd();"
        "print(json.dumps(census(root) | {'production': int(production(root) or 0)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    counts: dict[str, int] = yaml.safe_load(done.stdout)
    return counts
