"""Experiment files: valid params, and overrides that Hydra reads back as the same values."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.flatten import flatten
from dvc.utils.hydra import apply_overrides

from arithmetic.errors import InvalidParamsError, UserError
from benchmarks.workspace import git
from registry.dvc_lock import read_yaml
from scripts.experiment import find_experiment, load_experiment, overrides

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_experiment_files_hold_only_params_that_differ_and_overrides_give_their_values(
    name, project
):
    before, changed = flatten(read_yaml(project / "params.yaml")), flatten(load_experiment(name))
    assert changed
    assert not [key for key, value in changed.items() if before[key] == value]
    apply_overrides(str(project / "params.yaml"), overrides(load_experiment(name)))
    assert flatten(read_yaml(project / "params.yaml")) == before | changed


def test_small_numbers_and_lists_survive(project):
    changed = {"train": {"adamw_learning_rate": 0.00001, "batch_sizes": [64]}}
    apply_overrides(str(project / "params.yaml"), overrides(changed))
    train = read_yaml(project / "params.yaml")["train"]
    assert (train["adamw_learning_rate"], train["batch_sizes"]) == (1e-05, [64])


def test_unknown_experiment_and_misspelled_key_are_found_before_anything_runs(project):
    (project / "experiments/bad.yaml").write_text("train: {sed: 2}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_experiment("unknown", project)
    assert error.value.hint == "choose from bad"
    with pytest.raises(InvalidParamsError, match=r"unknown key train\.sed") as error:
        load_experiment("bad", project)
    assert "seed" in error.value.hint


def test_experiment_is_found_beside_a_branch_of_its_name(tmp_path):
    git(tmp_path, "init", "-q")
    for message in ("baseline", "experiment"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", message)
    baseline, experiment = (
        git(tmp_path, "rev-parse", revision).strip() for revision in ("HEAD~1", "HEAD")
    )
    git(tmp_path, "branch", "grpo", baseline)
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/grpo"
    git(tmp_path, "update-ref", ref, experiment)
    assert find_experiment("grpo", baseline, tmp_path) == experiment
    with pytest.raises(UserError, match="the experiment other of"):
        find_experiment("other", baseline, tmp_path)
