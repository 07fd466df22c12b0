"""A sweep on a Ray cluster of two nodes here: its runs, a killed task, mistakes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from arithmetic.errors import UserError
from benchmarks.workspace import environment
from registry import MODEL_NAME
from registry.dvc_lock import parse_yaml
from scripts import sweep
from scripts.sweep import combine

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


def start_sweep(root: Path, address: str, *settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.sweep", *settings],
        cwd=root,
        env=environment(RAY_ADDRESS=address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(process: int | str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def kill_a_task(nodes: "Cluster", sweep: "subprocess.Popen[str]") -> None:
    """Kill one worker of the cluster while its stages run."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()]
    while sweep.poll() is None:
        for worker in [child for raylet in raylets for child in children(raylet)]:
            with suppress(FileNotFoundError):
                name = Path(f"/proc/{worker}/cmdline").read_text()
                if name.startswith("ray::run_pipeline") and children(worker):
                    os.kill(int(worker), signal.SIGKILL)
                    return
        time.sleep(0.05)
    raise AssertionError(sweep.communicate())


@pytest.mark.slow
def test_seeds_become_runs_below_one_parent_though_a_task_is_killed(project, nodes):
    process = start_sweep(project, nodes.address, "train.seed=2,3", "evaluate.random_sample=21")
    kill_a_task(nodes, process)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(experiments, "attributes.run_name LIKE 'sweep %'")
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"train.seed": "2,3", "evaluate.random_sample": "21"}
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    params = [found.data.params for found in client.search_runs(experiments, below)]
    assert sorted(each["train.seed"] for each in params) == ["2", "3"]
    assert {each["evaluate.random_sample"] for each in params} == {"21"}
    assert len(client.search_model_versions(f"name = '{MODEL_NAME}'")) == 3


@pytest.mark.slow
def test_a_failed_run_is_reported_with_the_error_of_its_stage(project, nodes):
    (project / "hard_cases.csv").write_text("question\n")
    process = start_sweep(project, nodes.address, "train.seed=2")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "train.seed=2 failed:" in errors
    assert "cannot read hard cases" in errors
    assert "error: 1 of 1 runs failed" in errors


def test_settings_are_combined_as_dvc_combines_them():
    contents = combine(["train.seed=range(1,3)", "train.batch_sizes=[16],[32]"])
    assert [*contents] == [
        f"train.seed={seed} train.batch_sizes={sizes}"
        for seed in (1, 2)
        for sizes in ("[16]", "[32]")
    ]
    content = contents["train.seed=2 train.batch_sizes=[32]"].encode()
    train = parse_yaml(content, "params.yaml")["train"]
    assert (train["seed"], train["batch_sizes"]) == (2, [32])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.sed=1", "train.sed"),
        ("train.seed=one", "train.seed"),
        ("train.seed", "train.seed"),
        ("train.seed=1,(", "mismatched input|token"),
    ],
)
def test_a_wrong_setting_is_an_error_before_anything_runs(setting, message):
    with pytest.raises(UserError, match=message):
        combine([setting])


def test_without_a_cluster_the_queue_is_named():
    with pytest.raises(UserError, match="RAY_ADDRESS") as error:
        sweep.run(["train.seed=1,2"])
    assert "--queue" in error.value.hint
