"""Run the first stages of a small pipeline in this process, without DVC."""

import shutil
from pathlib import Path

import joblib
import pytest

from stages import export, generate, train
from tests.small_project import small_params, write_params


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder after generate, train and export; the model is right on some equations."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(joblib, "cpu_count", lambda: 1)
        write_params(folder / "params.yaml", small_params())
        (folder / "hard_cases.csv").write_text("equation\n")
        for stage in (generate, train, export):
            stage.main()
    return folder


@pytest.fixture
def workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of `trained` as the working directory, on one core."""
    folder = tmp_path / "workspace"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    return folder
