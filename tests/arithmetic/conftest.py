"""Provide model directories with random weights."""

import shutil
from pathlib import Path

import pytest

from tests.random_models import write_model


@pytest.fixture(scope="session")
def all_operations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory of all operations over 0-99; tests do not change it."""
    return write_model(tmp_path_factory.mktemp("random") / "model", "+-*/")


@pytest.fixture
def directory(all_operations: Path, tmp_path: Path) -> Path:
    """Return a copy of a model directory that a test may change."""
    return Path(shutil.copytree(all_operations, tmp_path / "model"))
