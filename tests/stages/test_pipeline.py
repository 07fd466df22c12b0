"""`dvc repro` and `dvc exp run` as users see them: what runs, is cached and is registered."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from registry.dvc_lock import read_lock
from stages import evaluate, export, generate, train
from tests.small_project import dvc, git, small_params, write_params

STAGES = ("generate", "train", "export", "evaluate")


@pytest.fixture(scope="module")
def viewed(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the pipeline whose files may be edited, and are not run."""
    return Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("viewed") / "project"))


def stale_stages(root: Path) -> set[str]:
    """Return the stages that DVC would run, but for the one that always runs."""
    return set(json.loads(dvc(root, "status", "--json"))) - {"register"}


def registered_versions(root: Path) -> list[int]:
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        rows = store.execute("SELECT version FROM model_versions ORDER BY version")
        return [int(version) for (version,) in rows]


def ran_stages(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_metrics_table_is_narrow_and_has_no_empty_row(viewed):
    header, *rows = dvc(viewed, "metrics", "show").splitlines()
    assert sorted(row.split()[0] for row in rows) == [
        "metrics/evaluation.json",
        "metrics/training.json",
    ]
    assert len(header.split()) == 1 + 6
    assert all(set(row.split()[1:]) != {"-"} for row in rows)
    assert max(map(len, [header, *rows])) <= 120


def test_edit_makes_stale_what_depends_on_it(viewed):
    assert stale_stages(viewed) == set()
    for names, stale in (
        (("README.md", "arithmetic/errors.py", "serving/app.py", "stages/progress.py"), set()),
        (("stages/export.py",), {"export"}),
        (("stages/certify.py",), {"export", "evaluate"}),
        (("arithmetic/model.py",), {"train", "export", "evaluate"}),
    ):
        for name in names:
            with (viewed / name).open("a", encoding="utf-8") as file:
                file.write("\n# edited\n")
        assert stale_stages(viewed) == stale


def test_outputs_contain_no_time_path_or_run(pipeline):
    for name in ("data", "metrics", "model", "reports"):
        for path in filter(Path.is_file, (pipeline / name).rglob("*")):
            content = path.read_bytes()
            assert str(pipeline).encode() not in content
            assert b"run_id" not in content
            assert not re.search(rb"20[0-9]{2}-[0-9]{2}-[0-9]{2}", content)


@pytest.mark.parametrize("stage", [generate, train, export, evaluate])
def test_invalid_params_stop_every_stage(workspace, stage, capsys):
    params = small_params()
    params["train"]["sede"] = 1
    write_params(workspace / "params.yaml", params)
    with pytest.raises(SystemExit) as exit_status:
        stage.main()
    assert exit_status.value.code == 1
    assert capsys.readouterr().err == (
        "error: params.yaml: unknown key train.sede\nhint: did you mean seed?\n"
    )


@pytest.mark.slow
def test_lost_store_is_registered_again_and_nothing_else_runs(project):
    (project / "mlflow.db").unlink()
    shutil.rmtree(project / "mlartifacts")
    output = dvc(project, "repro")
    assert ran_stages(output) == ["register"]
    assert "registered: arithmetic-lm version 1" in output
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.slow
def test_seed_changed_and_changed_back(project):
    """Another seed: no new data, version 2. Back again: from the cache, no third version."""
    committed = (project / "params.yaml").read_bytes()
    # DVC writes 1e-05, which YAML 1.1 reads as text.
    settings = ["-S", "train.seed=2", "-S", "train.adamw_learning_rate=0.00001"]
    output = dvc(project, "exp", "run", *settings)
    assert ran_stages(output) == ["train", "export", "evaluate", "register"]
    assert "registered: arithmetic-lm version 2" in output
    assert "1e-05" in (project / "params.yaml").read_text()
    assert read_lock(project).params["train.adamw_learning_rate"] == 1e-05

    table = dvc(project, "exp", "show", "--only-changed", "--md")
    header = next(line for line in table.splitlines() if line.startswith("|"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert "train.seed" in columns
    assert len(columns) <= 12, columns

    (project / "params.yaml").write_bytes(committed)
    output = dvc(project, "repro")
    assert ran_stages(output) == ["register"]
    assert "Stage 'train' is cached" in output
    assert "already registered: arithmetic-lm version 1" in output
    assert registered_versions(project) == [1, 2]
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.slow
def test_experiment_in_a_copy_registers_in_the_repository(project):
    output = dvc(project, "exp", "run", "--temp", "-S", "train.seed=6")
    assert "registered: arithmetic-lm version 2" in output
    assert git(project, "status", "--porcelain") == ""
    # Again from a folder below, with a relative address: the stages come from the cache.
    arguments = ["-S", "../params.yaml:train.seed=6", "../dvc.yaml:register"]
    relative = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    output = dvc(project / "docs", "exp", "run", "--temp", *arguments, **relative)
    assert "already registered: arithmetic-lm version 2" in output
    assert registered_versions(project) == [1, 2]
    assert list(project.rglob("mlflow.db")) == [project / "mlflow.db"]


@pytest.mark.slow
def test_clone_with_windows_line_ends_and_without_cache_arrives_at_the_same_lock(
    pipeline, tmp_path
):
    clone = tmp_path / "clone"
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", str(pipeline), str(clone))
    git(clone, "config", "core.autocrlf", "true")
    for path in ("Makefile", "scripts/setup.sh", *read_lock(clone).deps):
        if (clone / path).is_file():
            assert (clone / path).read_bytes() == (pipeline / path).read_bytes(), path
    output = dvc(clone, "repro", "evaluate")
    assert ran_stages(output) == list(STAGES)
    assert (clone / "dvc.lock").read_bytes() == (pipeline / "dvc.lock").read_bytes()
    assert git(clone, "status", "--porcelain") == ""
