"""Provide finished projects, SQLite stores and one MLflow server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.client import open_client
from registry.record import record
from tests.mlflow_server import run_mlflow_server
from tests.registry.project import make_project

USER_SETTINGS = ("MLFLOW_", "DVC_EXP_", "SIGNING_KEY", "TRUSTED_KEY", "SERVICE_URL", "GIT_")


@pytest.fixture(scope="session", autouse=True)
def _no_user_settings() -> Iterator[None]:
    """Let no test read the user's settings, or write to their registry."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(USER_SETTINGS):
                patch.delenv(name)
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/no-store-outside-of-fixtures.db")
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty SQLite store once; its tables take seconds."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, folder)
        open_client()
    return folder


@pytest.fixture(scope="session")
def recorded(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register three projects once: versions 1 and 2 are exact, version 3 has 90 errors."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copytree(empty_store, folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, folder / "store")
        for seed, errors in ((1, 0), (2, 0), (3, 90)):
            record(make_project(folder / f"project-{seed}", seed, errors=errors))
    return folder


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a fresh empty store."""
    shutil.copytree(empty_store, tmp_path / "store")
    return use_store(monkeypatch, tmp_path / "store")


@pytest.fixture
def versions(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a store with three versions, and `project-1` to `-3` beside it."""
    shutil.copytree(recorded, tmp_path / "recorded")
    return use_store(monkeypatch, tmp_path / "recorded" / "store")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a finished project."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def server_url(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an MLflow server that serves the artifacts too."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store / "mlflow.db", folder)
    with run_mlflow_server(folder) as address:
        yield address


@pytest.fixture
def server(server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the test's store be the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_url)
    return server_url


def use_store(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let MLFLOW_TRACKING_URI name the SQLite store in `folder`."""
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder
