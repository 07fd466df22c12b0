"""A small pipeline, run once for real: `+ -` over 0-9, a few seconds, all of it in tmp."""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from benchmarks.small import checkout, dvc_environment
from serving.settings import Settings


# The same cases in every run, and none too slow on a busy machine.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("tests")

# What a user's shell may say to the product: no test may write to their registry, by their keys.
OURS = ("MLFLOW_", "SIGNING_KEY", "SHADOW_", "DVC_EXP_", "DVC_STAGE", "GIT_", "FORWARDED_", "AWS_")


@pytest.fixture(scope="session", autouse=True)
def _environment_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's settings; versions are remembered where no user's service looks."""
    settings = {name.upper() for name in Settings.model_fields}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper() in settings or name.startswith((*OURS, "PROMETHEUS_MULTIPROC_DIR")):
                patch.delenv(name)
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
