"""A small pipeline, run once for real: `+ -` over 0-9, a few seconds, all of it in tmp."""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.small import checkout, dvc_environment


@pytest.fixture(scope="session", autouse=True)
def _models_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services of tests remember versions here, and not where a user's service looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_CACHE", str(tmp_path_factory.mktemp("models")))
        yield


def dvc(root: Path, *arguments: str) -> str:
    """Run dvc in `root`; its output is part of the assertion when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many random cases the tests of tests/test_fuzz.py tried."""
    for report in terminalreporter.getreports("passed"):
        for name, count in report.user_properties:
            if name == "cases" and report.when == "call":
                terminalreporter.write_line(f"{count:6,d} cases  {report.nodeid}")
