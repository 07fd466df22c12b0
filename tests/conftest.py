"""A small pipeline, run once for real: `+ -` over 0-9, a few seconds, all of it in tmp."""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

SMALL = {
    "generate": {
        "max_operand": 9,
        "train_size": 120,
        "validation_size": 20,
        "test_size": 20,
    },
    "train": {
        "batch_sizes": [16, 16],
        "warmup_steps": 10,
        "flat_steps": 50,
        "decay_steps": 90,
        "validate_every": 50,
    },
    "evaluate": {"lowest_margins": 20, "random_sample": 20},
}


def small_params() -> dict[str, dict[str, object]]:
    """params.yaml of the repository with the figures of SMALL."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section] |= values
    return params


def clean_environment() -> dict[str, str]:
    """This environment, with this Python first, and no tracking server of the user's."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("MLFLOW_TRACKING_URI", None)
    return environment


def dvc(root: Path, *arguments: str) -> str:
    """Run dvc in `root`; its output is part of the assertion when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` as a fixed author."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *author, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def checkout(target: Path) -> Path:
    """The repository's files as they are now, with the small params, as a git repository."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("bundle/", "metrics/", "docs/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "dvc.lock").unlink(missing_ok=True)
    (target / "params.yaml").write_text(yaml.safe_dump(small_params()), encoding="utf-8")
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "small")
    return target


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout where every stage but `record` has run. Read it; copy it before changing it."""
    root = checkout(tmp_path_factory.mktemp("pipeline") / "small")
    dvc(root, "repro", "evaluate")
    return root


@pytest.fixture
def workspace(pipeline: Path, tmp_path: Path) -> Path:
    """A copy of `pipeline` that a test may change."""
    target = tmp_path / "workspace"
    shutil.copytree(pipeline, target, symlinks=True)
    return target


@pytest.fixture
def tiny_bundle(pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the small pipeline's bundle."""
    target = tmp_path / "bundle"
    shutil.copytree(pipeline / "bundle", target)
    return target
