"""The contents of a run: workspace files in MLflow's terms.

Each step may be repeated on the same run without doubling anything: params keep their value,
metric points carry the run's own start as their time, data sets are known by digest, files are
overwritten.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from registry import inputs, plots, workspace
from registry.origin import Origin
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

_BATCH = 1000  # points a request, the most that MLflow's servers take
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}


def fill(client: "MlflowClient", run: "Run", found: Workspace, origin: Origin) -> None:
    """Params, metrics, data sets, pictures and files of the workspace into the run."""
    from mlflow.entities import Param

    run_id = run.info.run_id
    points = _points(found, origin, run.info.start_time)
    client.log_batch(
        run_id, params=[Param(k, workspace.param_text(v)) for k, v in sorted(found.params.items())]
    )
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])
    client.log_inputs(run_id, datasets=_datasets(origin))
    # DVC rewrites the entry of `record` in dvc.lock, so a restored run's has other bytes; it comes
    # before metrics/, whose absence is what makes a run be filled again.
    client.set_tag(run_id, "dvc_lock_sha256", found.lock_sha256)
    for name in ("dvc.lock", "dvc.yaml", "params.yaml"):
        if (found.root / name).is_file():
            client.log_artifact(run_id, str(found.root / name))
    client.log_artifacts(run_id, str(found.root / "metrics"), "metrics")
    _log_inputs(client, run_id, origin)
    with tempfile.TemporaryDirectory() as scratch:
        plots.draw(found.root / "metrics", Path(scratch))
        client.log_artifacts(run_id, scratch, "plots")


def _log_inputs(client: "MlflowClient", run_id: str, origin: Origin) -> None:
    """How the training questions were distributed: what a service compares its inputs with."""
    if origin.inputs is None:  # recorded without the data: the service says what it compares with
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / Path(inputs.ARTIFACT).name
        inputs.write(path, origin.inputs)
        client.log_artifact(run_id, str(path), str(Path(inputs.ARTIFACT).parent))


def _points(found: Workspace, origin: Origin, time: int) -> "list[Metric]":
    """The curves of history.csv by step, and the numbers of the JSON files."""
    from mlflow.entities import Metric

    folder = found.root / "metrics"
    points = []
    history = pd.read_csv(folder / "history.csv")
    for name in history.columns.drop(["step", "best"], errors="ignore"):
        if pd.api.types.is_numeric_dtype(history[name]):
            curve = history[["step", name]].dropna()
            points += [
                Metric(name, float(value), time, int(step))
                for step, value in curve.itertuples(index=False)
            ]
    numbers = workspace.metrics(json.loads(found.evaluation()))
    training = folder / "training.json"
    if training.is_file():
        numbers |= workspace.metrics(json.loads(training.read_bytes()), "training.")
    numbers |= origin.seconds
    return points + [Metric(name, value, time, 0) for name, value in numbers.items()]


def _datasets(origin: Origin) -> "list[DatasetInput]":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for fields in origin.datasets:
        name = fields["name"]
        tag = InputTag("mlflow.data.context", _CONTEXTS.get(name, name))
        inputs.append(DatasetInput(Dataset(**fields), [tag]))
    return inputs
