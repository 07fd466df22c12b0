"""The evaluation on a Ray cluster of two nodes here, with workers killed in the middle."""

import os
import signal
import sys
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pytest

from arithmetic.errors import UserError
from stages import evaluate
from stages.certify import Columns, Equations, WorkerModel, compute_margins, run_over_shards
from stages.dataset import build_frame

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

A, B = np.indices((10, 10)).reshape(2, 100)
EQUATIONS = build_frame({"+": (A, B)})


@pytest.fixture
def on_cluster(nodes: "Cluster", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)


def read_outputs() -> list[bytes]:
    plots = (evaluate.BY_LENGTH, evaluate.BY_CHAIN, evaluate.ERROR_MAP)
    return [path.read_bytes() for path in (evaluate.REPORT, evaluate.METRICS, *plots)]


@pytest.mark.slow
def test_the_evaluation_writes_the_same_bytes_on_a_cluster(workspace, nodes, monkeypatch):
    monkeypatch.setattr(evaluate, "SHARD", 30)
    monkeypatch.setattr(evaluate, "DECODED_SHARD", 7)
    evaluate.main()
    on_one_core = read_outputs()
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    evaluate.main()
    assert read_outputs() == on_one_core


@pytest.mark.slow
def test_shards_are_spread_over_the_nodes(trained, on_cluster):
    def return_node(model: WorkerModel, equations: Equations) -> Columns:
        import ray

        return {"node": [ray.get_runtime_context().get_node_id()] * len(equations.a)}

    nodes = run_over_shards(return_node, trained / "model", EQUATIONS, 25, "test")
    assert nodes["node"].nunique() == 2


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(trained, on_cluster, tmp_path, monkeypatch):
    def die_once(model: WorkerModel, equations: Equations) -> Columns:
        marker = tmp_path / str(equations.a[0])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_margins(model, equations)

    margins = run_over_shards(die_once, trained / "model", EQUATIONS, 50, "test")
    assert len([*tmp_path.iterdir()]) == 2
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    expected = run_over_shards(compute_margins, trained / "model", EQUATIONS, 50, "test")
    assert margins.equals(expected)


@pytest.mark.slow
def test_a_lost_node_loses_nothing(workspace, nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "SHARD", 30)
    evaluate.main()
    on_one_core = read_outputs()
    lost, marker = nodes.add_node(num_cpus=1, include_dashboard=False), tmp_path / "marker"
    lost_id = lost.node_id

    def lose_node(model: WorkerModel, equations: Equations) -> Columns:
        import ray

        if ray.get_runtime_context().get_node_id() == lost_id and not marker.exists():
            marker.touch()
            os.kill(os.getppid(), signal.SIGKILL)  # the node's raylet, which started this worker
        return compute_margins(model, equations)

    monkeypatch.setattr(evaluate, "compute_margins", lose_node)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    evaluate.main()
    assert marker.exists()
    assert read_outputs() == on_one_core
    nodes.remove_node(lost, allow_graceful=False)


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_is_reported(trained, on_cluster):
    def die(model: WorkerModel, equations: Equations) -> Columns:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(UserError, match=r"Ray cluster at \S+ failed") as error:
        run_over_shards(die, trained / "model", EQUATIONS, 50, "test")
    assert "ray status" in error.value.hint


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_reported(trained, nodes, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1:"):
        run_over_shards(compute_margins, trained / "model", EQUATIONS, 50, "test")


def test_without_ray_its_address_is_reported_with_a_hint(trained, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="not installed") as error:
        run_over_shards(compute_margins, trained / "model", EQUATIONS, 50, "test")
    assert "make setup-ray" in error.value.hint
