"""Test logging and registering a finished project: content, repetition, kills, lost stores."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from registry import EXPERIMENT, MODEL_NAME, REPORT_TAG, run_content
from registry.client import open_client
from registry.exceptions import StaleWorkspaceError
from registry.record import record
from tests.registry.project import TRAINING, make_project, write_evaluation, write_json


def test_run_and_version_explain_themselves(versions):
    client = open_client()
    version = client.get_model_version(MODEL_NAME, "1")
    run = client.get_run(version.tags[REPORT_TAG])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.seed"] == "1"
    assert run.data.params["generate.operations"] == "['+', '-']"
    assert run.data.metrics["evaluation/minimum_margin"] == 4.5
    assert run.data.metrics["evaluation/errors_addition"] == 0
    assert len(run.data.metrics) <= 25
    assert {"/" in name for name in run.data.metrics} == {True}
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in losses] == [(0, 2.5), (100, 0.5)]
    assert "0 errors" in run.data.tags["mlflow.note.content"]
    assert run.data.tags["mlflow.user"]
    assert run.data.tags["mlflow.source.name"] == "dvc repro"
    assert run.inputs is not None
    digests = {data.dataset.name: data.dataset.digest for data in run.inputs.dataset_inputs}
    path = client.download_artifacts(run.info.run_id, "lineage.json")
    lineage = json.loads(Path(path).read_text())
    assert digests == {Path(path).stem: md5 for path, md5 in lineage["data_md5"].items()}
    files = {info.path for info in client.list_artifacts(run.info.run_id)}
    assert files == {"dvc.lock", "params.yaml", "reports", "metrics", "lineage.json"}
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert version.tags["errors"] == "0"
    assert version.tags["equations"] == "200"
    assert "**0 errors** in 200 equations" in str(version.description)
    assert client.get_registered_model(MODEL_NAME).description


def test_curves_of_reinforcement_learning_are_logged_by_operation(project):
    write_json(project / "reports/training.json", TRAINING | {"grpo": {"errors_before": 90}})
    (project / "metrics/grpo.csv").write_text(
        "step,operation,reward,gradient_norm,exact_match\n0,+,,,0.5\n0,-,,,0.25\n"
        "10,+,0.75,0.1,1\n10,-,0.5,0.1,1\n"
    )
    assert run_content.numbers(project, {})["grpo/errors_before"] == 90
    points = run_content.curves(project)
    assert points[0] | points[10] == {
        "train/loss": 2.5,
        "train/learning_rate": 0.01,
        "grpo/exact_match_addition": 1.0,
        "grpo/exact_match_subtraction": 1.0,
        "grpo/gradient_norm": 0.1,
        "grpo/reward_addition": 0.75,
        "grpo/reward_subtraction": 0.5,
    }
    assert points[0]["grpo/exact_match_subtraction"] == 0.25


def test_largest_report_gives_at_most_25_metrics(project):
    report = json.loads((project / "reports/evaluation.json").read_text())
    report["by_operation"] = {symbol: {"errors": 0} for symbol in "+-*/"}
    report["sampled"] = {"error_rate_bound": 1e-6}
    names = {*run_content.numbers(project, report), *run_content._CURVES.values()}
    assert len(names) <= 25


def test_registered_model_has_no_pickle_and_answers_by_mlflow_from_another_directory(
    versions, tmp_path
):
    code = (
        "import mlflow, pandas; model = mlflow.pyfunc.load_model('models:/arithmetic-lm/2');"
        "rows = pandas.DataFrame({'equation': ['7-9=', '8+8=']});"
        "print(list(model.predict(rows)['answer']))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)
    assert "['-2', '16']" in output
    names = {path.name for path in versions.rglob("*") if path.is_file()}
    assert "model.safetensors" in names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pt"))}


def test_repeating_changes_nothing(versions):
    before = (versions / "mlflow.db").read_bytes()
    done = record(versions.parent / "project-1")
    assert (done.version, done.is_new_run, done.is_new_version) == ("1", False, False)
    assert (versions / "mlflow.db").read_bytes() == before


def test_experiment_of_dvc_is_named_in_the_run(store, project, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "lower-rate")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    run = open_client().get_run(record(project).run_id)
    assert run.info.run_name == "lower-rate"
    assert run.data.tags["DVC_EXP_BASELINE_REV"] == "a" * 40


@pytest.mark.parametrize("change", ["evaluation", "model"])
def test_stale_workspace_is_not_registered(store, project, change):
    if change == "model":
        (project / "model/model.safetensors").write_bytes(b"other")
    else:
        write_evaluation(project, model_digest="0" * 64)
    with pytest.raises(StaleWorkspaceError):
        record(project)
    assert open_client().get_experiment_by_name(EXPERIMENT) is None


def test_run_is_recorded_without_git_and_without_a_commit(store, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    project = make_project(tmp_path / "project")
    subprocess.run(["git", "init", "-q", project], check=True)
    first = record(project)
    monkeypatch.setenv("PATH", str(tmp_path))
    write_evaluation(project, minimum_margin=4.0)
    second = record(project)
    for done in (first, second):
        tags = open_client().get_run(done.run_id).data.tags
        assert "mlflow.source.git.commit" not in tags


# The process kills itself before the client's call of this name.
KILLED_AT = [
    "log_batch",
    "log_dict",
    "log_model_artifacts",
    "create_model_version",
    "update_model_version",  # the version exists, without its evaluation
]


def record_until(call: str, project: Path) -> None:
    """Record in a process that is killed at `call`."""

    def kill(*arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    def target():
        setattr(MlflowClient, call, kill)
        record(project)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("call", KILLED_AT)
def test_killed_anywhere_a_repeat_completes_without_duplicates(store, project, call):
    record_until(call, project)
    done = record(project)
    client = open_client()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    (version,) = client.search_model_versions(f"name = '{MODEL_NAME}'")
    assert (run.info.run_id, run.info.status) == (done.run_id, "FINISHED")
    assert (version.run_id, version.tags[REPORT_TAG]) == (done.run_id, done.run_id)
    assert client.get_logged_model(str(version.source).removeprefix("models:/")).status == "READY"
    assert not record(project).is_new_run


def test_new_evaluation_is_a_new_run_of_its_version_also_after_a_kill(versions):
    project = versions.parent / "project-1"
    write_evaluation(project, minimum_margin=4.0, equations=100)
    record_until("set_model_version_tag", project)
    done = record(project)
    version = open_client().get_model_version(MODEL_NAME, "1")
    assert (done.version, done.is_new_run, done.is_new_version) == ("1", False, False)
    assert version.tags["minimum_margin"] == "4.0"
    assert version.tags[REPORT_TAG] == done.run_id
    assert "100 equations" in str(version.description)


def test_failed_logging_registers_nothing_and_a_repeat_completes_it(store, project):
    history = project / "metrics/history.csv"
    content = history.read_text()
    history.write_text(content.replace("2.5", "not a number"))
    write_evaluation(project)
    with pytest.raises(ValueError, match="not a number"):
        record(project)
    assert open_client().search_registered_models() == []
    history.write_text(content)
    write_evaluation(project)
    assert record(project).version == "1"
