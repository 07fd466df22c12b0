"""`dvc repro` as a user sees it: what reruns, what comes from the cache, what is recorded."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.small import dvc_environment, git
from tests.conftest import dvc


def status(root: Path) -> dict[str, list[object]]:
    """Stages that DVC would rerun, but for the one that always runs."""
    changed: dict[str, list[object]] = json.loads(dvc(root, "status", "--json"))
    assert changed.pop("record", ["always changed"]) == ["always changed"]
    return changed


def edit(root: Path, name: str) -> None:
    """A change of bytes that changes no behaviour."""
    path = root / name
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


def test_nothing_is_stale_after_a_run(pipeline):
    """`record` has never run here, which DVC says of it; the others are as dvc.lock has them."""
    changed = json.loads(dvc(pipeline, "status", "--json"))
    assert set(changed) <= {"record"}


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("README.md", set()),
        ("arithmetic/errors.py", set()),
        ("serving/app.py", set()),
        ("arithmetic/decoding.py", {"export", "evaluate"}),
        ("stages/evaluate.py", {"evaluate"}),
        ("stages/export.py", {"export"}),
        ("arithmetic/model.py", {"train", "export", "evaluate"}),
        ("stages/generate.py", {"generate"}),
    ],
)
def test_an_edit_touches_only_what_depends_on_it(workspace, name, stale):
    edit(workspace, name)
    changed = json.loads(dvc(workspace, "status", "--json"))
    assert set(changed) - {"record"} == stale


@pytest.mark.slow
def test_a_seed_there_and_back(workspace):
    """Another seed: no new data, a second version. Back again: from the cache, no third one."""
    first = dvc(workspace, "repro")
    assert "version 1 of arithmetic-lm, new" in first
    lock = (workspace / "dvc.lock").read_text()

    second = dvc(workspace, "exp", "run", "-S", "train.seed=2")
    assert "Stage 'generate' didn't change, skipping" in second
    assert "Running stage 'train'" in second
    assert "version 2 of arithmetic-lm, new" in second

    dvc(workspace, "params", "diff")
    git(workspace, "checkout", "-q", "params.yaml")
    third = dvc(workspace, "repro")
    assert "Running stage 'train'" not in third
    assert "Stage 'train' is cached - skipping run" in third
    assert "already recorded" in third
    assert "version 1 of arithmetic-lm" in third
    assert (workspace / "dvc.lock").read_text() == lock
    assert status(workspace) == {}

    # The files are the truth: a lost store is made again from them.
    for name in ("mlflow.db", "mlartifacts"):
        path = workspace / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "version 1 of arithmetic-lm, new" in dvc(workspace, "repro")


@pytest.mark.parametrize("name", ["params.yaml", "stages/train.py"])
def test_what_was_edited_after_its_stage_is_not_recorded(workspace, name):
    """The lock must not come to say that other params or code made this model."""
    lock = (workspace / "dvc.lock").read_bytes()
    if name == "params.yaml":
        params = yaml.safe_load((workspace / name).read_text())
        params["train"]["seed"] = 7
        (workspace / name).write_text(yaml.safe_dump(params))
    else:
        edit(workspace, name)
    done = subprocess.run(
        ["python", "-m", "dvc", "repro", "--single-item", "record"],
        cwd=workspace,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "run `dvc repro`" in done.stderr
    assert (workspace / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
def test_a_clone_without_the_cache_arrives_at_the_same_lock(workspace, tmp_path):
    git(workspace, "add", "-A")
    git(workspace, "commit", "-q", "-m", "with outputs")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(workspace), str(clone))
    before = (clone / "dvc.lock").read_text()
    dvc(clone, "repro", "--force", "evaluate")
    assert (clone / "dvc.lock").read_text() == before
    assert git(clone, "status", "--porcelain", "bundle", "metrics") == ""


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("generate", ["--summary", "s.csv"]),
        ("train", []),
        ("export", []),
        ("evaluate", []),
    ],
)
def test_bad_params_stop_every_stage_with_one_sentence(workspace, stage, arguments):
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["train"]["sede"] = 1
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    done = subprocess.run(
        ["python", "-m", f"stages.{stage}", *arguments],
        cwd=workspace,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: unknown key train.sede; did you mean seed?\n"


def test_each_stage_runs_by_itself_on_the_committed_files(workspace):
    """`python -m stages.evaluate` writes the bytes that DVC has."""
    before = (workspace / "metrics" / "evaluation.json").read_bytes()
    subprocess.run(
        ["python", "-m", "stages.evaluate"],
        cwd=workspace,
        env=dvc_environment(),
        capture_output=True,
        check=True,
    )
    assert (workspace / "metrics" / "evaluation.json").read_bytes() == before


def test_no_output_holds_a_time_a_path_or_a_run(pipeline):
    """What differs from run to run must not be in a DVC output."""
    for name in ("bundle", "metrics"):
        for path in filter(Path.is_file, (pipeline / name).rglob("*")):
            content = path.read_bytes()
            assert str(pipeline).encode() not in content
            assert b"run_id" not in content
            assert not re.search(rb"20[0-9]{2}-[0-9]{2}-[0-9]{2}", content)
