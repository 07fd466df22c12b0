"""Make a project of tiny params (operands 0-9, 150 steps) and run dvc and git in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from registry.dvc_lock import read_yaml

ROOT = Path(__file__).parents[1]
CHANGES: dict[str, dict[str, Any]] = {
    "generate": {"max_operand": 9, "train_size": 120, "validation_size": 20, "test_size": 20},
    "train": {
        "batch_sizes": [32],
        "warmup_steps": 10,
        "flat_steps": 80,
        "decay_steps": 60,
        "validate_every": 50,
    },
    "evaluate": {"lowest_margins": 20, "random_sample": 20},
}
LEFT_OUT = ("docs/", "metrics/", "tests/", "benchmarks/", "dvc.lock")


def small_params() -> dict[str, dict[str, Any]]:
    """Return the params of the repository with CHANGES."""
    content = read_yaml(ROOT / "params.yaml")
    return {section: {**values, **CHANGES.get(section, {})} for section, values in content.items()}


def write_params(path: Path, content: Mapping[str, Any]) -> None:
    """Write params.yaml."""
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(dict(content), file)


def make_project(root: Path) -> Path:
    """Copy the files of the repository as they are now, with small params, into a git repository.

    Neither outputs nor files that no stage needs are copied.
    """
    root.mkdir(parents=True)
    command = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in filter(None, git(ROOT, *command).split("\0")):
        if (ROOT / name).is_file() and not name.startswith(LEFT_OUT):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "docs").mkdir()
    (root / "docs" / "index.md").write_text("A folder below the root.\n")
    write_params(root / "params.yaml", small_params())
    git(root, "init", "-q", "-b", "main")
    commit(root, "Add a small pipeline")
    return root


def commit(root: Path, message: str) -> None:
    """Commit everything that git does not ignore."""
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` as a fixed author; return its output."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = run(root, "git", *author, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *arguments: str, **environment: str) -> str:
    """Run dvc in `root`; return its output."""
    done = run(root, sys.executable, "-m", "dvc", *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(root: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in `root` with this Python first in PATH and no MLflow settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    inherited |= {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    return subprocess.run(
        command,
        cwd=root,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
