"""Provide finished projects, SQLite stores and one MLflow server."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.client import open_client
from registry.record import record
from scripts.server_process import build_mlflow
from tests.registry.project import make_project


@pytest.fixture(scope="session", autouse=True)
def _no_default_store() -> Iterator[None]:
    """Let no test write to the repository's store."""
    with pytest.MonkeyPatch.context() as patch:
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
    folder = use_store(monkeypatch, tmp_path / "recorded" / "store")
    open_client()  # corrects the locations of the copy
    return folder


@pytest.fixture
def serve_health(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that lets a service answer /health with its arguments; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()

        def serve(**health: object) -> str:
            (tmp_path / "health").write_text(json.dumps(health))
            return f"http://127.0.0.1:{service.server_port}"

        yield serve
        service.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a finished project."""
    return make_project(tmp_path / "project")


@pytest.fixture
def server(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the store be behind an MLflow server, which serves the artifacts too."""
    with build_mlflow(store) as mlflow:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
        yield mlflow.address


def use_store(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let MLFLOW_TRACKING_URI name the SQLite store in `folder`."""
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder
