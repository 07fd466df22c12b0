"""Keep the tests apart from the user's settings, and run one small pipeline for all of them."""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: I001

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

from benchmarks.workspace import USER_SETTINGS
from serving.settings import Settings
from tests.small_project import make_project

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# The same cases in every run, and no case too slow on a busy machine.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("tests")

# A runner started in the background ignores Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A test must not use the user's registry or keys.
SETTINGS = (*USER_SETTINGS, "TRUSTED_KEY", "SERVICE_URL", "FORWARDED_", "AWS_", "PROMETHEUS_")


@pytest.fixture(scope="session", autouse=True)
def _no_user_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the user's settings, and keep downloaded models out of the user's cache."""
    settings = {name.upper() for name in Settings.model_fields}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper() in settings or name.startswith(SETTINGS):
                patch.delenv(name)
        patch.setenv("MODEL_CACHE", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project after one `dvc repro`, committed; copy it, never change it.

    The workers of pytest-xdist share it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    root, finished = folder / "pipeline", folder / "pipeline-finished"
    with FileLock(folder / "pipeline.lock"):
        if not finished.exists():
            shutil.rmtree(root, ignore_errors=True)
            finished.write_text(make_project(root))
    return root


@pytest.fixture
def project(pipeline: Path, tmp_path: Path) -> Path:
    """Return a copy of `pipeline` that a test may change."""
    target = tmp_path / "project"
    shutil.copytree(pipeline, target, symlinks=True)
    return target


@pytest.fixture(scope="module")
def nodes() -> Iterator["Cluster"]:
    """Start two nodes with one CPU each, which do not have this code."""
    if importlib.util.find_spec("ray") is None:
        assert "CI" not in os.environ, "Ray is not installed; .ci/run calls make setup-ray"
        pytest.skip("Ray is not installed: make setup-ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        # Workers inherit the environment of their node, which differs from a stage's.
        for name in stages.REPRODUCIBLE_ENVIRONMENT:
            patch.delenv(name)
        patch.delenv("PYTHONPATH", raising=False)
        patch.chdir("/")
        for _ in range(2):
            nodes.add_node(num_cpus=1, include_dashboard=False)
    yield nodes
    nodes.shutdown()
