"""Make a project of tiny params (operands 0-9, 150 steps) and run dvc and git in it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results_file import ROOT
from benchmarks.workspace import TINY, copy, environment, git, merge
from registry.dvc_lock import read_yaml

__all__ = ["ROOT", "dvc", "git", "make_project", "run", "small_params", "write_params"]


def small_params() -> dict[str, dict[str, Any]]:
    """Return the params of the repository with those of a tiny pipeline."""
    return merge(read_yaml(ROOT / "params.yaml"), TINY)


def write_params(path: Path, content: Mapping[str, Any]) -> None:
    """Write params.yaml; JSON is YAML, too."""
    path.write_text(json.dumps(content), encoding="utf-8")


def make_project(root: Path) -> str:
    """Copy the repository as it is now with tiny params, run and commit its pipeline.

    Returns the output of `dvc repro`.
    """
    copy(root, TINY)
    (root / "docs").mkdir()
    (root / "docs" / "index.md").write_text("A folder below the root.\n", encoding="utf-8")
    output = dvc(root, "repro")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Run the pipeline")
    return output


def dvc(root: Path, *arguments: str, **variables: str) -> str:
    """Run dvc in `root`; return its output."""
    done = run(root, sys.executable, "-m", "dvc", *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(root: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in `root` without the user's settings."""
    env = environment(**variables)
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
