"""Run the first stages of a small pipeline in this process, without DVC."""

import shutil
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest

from stages import checkpoint, export, generate, train
from stages.checkpoint import Job
from stages.dataset import read_split
from stages.params import load_params
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


@pytest.fixture
def make_job(workspace: Path) -> Callable[..., Job]:
    """Return a function that builds the job of `workspace` with changed params of one section."""
    params = load_params()
    splits = [read_split(name, params.generate.grammar) for name in ("train", "validation")]
    checkpoint.CHECKPOINT.parent.mkdir(exist_ok=True)

    def make(section: str, **values: object) -> Job:
        changed = getattr(params, section).model_copy(update=values)
        return Job(params.model_copy(update={section: changed}), *splits)

    return make
