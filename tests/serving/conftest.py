"""Provide model directories and the application over them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry import download
from serving.app import create_app
from serving.settings import Settings
from tests.serving.model_directories import make_model

StartService = Callable[..., TestClient]


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until the condition holds; fail if it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a cache of its own; the user's settings are removed already."""
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def exact_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory that is exact on + and - up to 99; tests do not change it."""
    return make_model(tmp_path_factory.mktemp("models") / "exact")


@pytest.fixture
def start_service(exact_model: Path) -> Iterator[StartService]:
    """Return a function that starts the application and returns a client of it.

    MODEL_URI is the exact model unless the test says otherwise; errors become responses.
    """
    with ExitStack() as stack:

        def start(registry: Any = download, **settings: Any) -> TestClient:
            app = create_app(Settings(**{"model_uri": str(exact_model), **settings}), registry)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(start_service: StartService) -> TestClient:
    """Return a client of the service with default settings."""
    return start_service()
