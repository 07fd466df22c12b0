"""The contents of a run and of a version: workspace files in MLflow's terms.

Each step may be repeated on the same run without doubling anything: params keep their value,
metric points carry the run's own start as their time, data sets are known by digest, files are
overwritten.
"""

import ast
import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from arithmetic.config import load_config
from arithmetic.grammar import Equation
from registry import BUNDLE_TAG, MODEL, inputs, plots, workspace
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

# What a version needs besides MLflow itself, pinned to what is installed here.
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas")
_BATCH = 1000  # points a request, the most that MLflow's servers take
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}


def fill(client: "MlflowClient", run: "Run", found: Workspace) -> None:
    """Params, metrics, data sets, pictures and files of the workspace into the run."""
    from mlflow.entities import Param

    run_id = run.info.run_id
    points = _points(found, run.info.start_time)
    client.log_batch(run_id, params=[Param(k, _text(v)) for k, v in sorted(found.params.items())])
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])
    client.log_inputs(run_id, datasets=_datasets(found))
    for name in ("dvc.lock", "dvc.yaml", "params.yaml"):
        if (found.root / name).is_file():
            client.log_artifact(run_id, str(found.root / name))
    client.log_artifacts(run_id, str(found.root / "metrics"), "metrics")
    _log_inputs(client, run_id, found)
    with tempfile.TemporaryDirectory() as scratch:
        plots.draw(found.root / "metrics", Path(scratch))
        client.log_artifacts(run_id, scratch, "plots")


def _log_inputs(client: "MlflowClient", run_id: str, found: Workspace) -> None:
    """How the training questions were distributed: what a service compares its inputs with."""
    training = found.root / "data" / "train.csv"
    if not training.is_file():  # recorded without the data: the service says what it compares with
        return
    data = pd.read_csv(training, usecols=["operand_1", "operation", "operand_2"])
    questions = {
        str(operation): (
            rows["operand_1"].to_numpy(np.int64),
            rows["operand_2"].to_numpy(np.int64),
        )
        for operation, rows in data.groupby("operation", sort=True)
    }
    profile = inputs.profile(questions, load_config(found.root / "bundle").grammar)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / Path(inputs.ARTIFACT).name
        inputs.write(path, profile)
        client.log_artifact(run_id, str(path), str(Path(inputs.ARTIFACT).parent))


def log_model(client: "MlflowClient", experiment: str, run: "Run", found: Workspace) -> str:
    """The bundle as an MLflow model of the run; returns its id.

    What an interrupted recording left is used if complete and deleted if not.
    """
    import mlflow
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    for earlier in client.search_logged_models(
        [experiment], f"tags.{BUNDLE_TAG} = '{found.bundle_sha256}'"
    ):
        if earlier.status == LoggedModelStatus.READY:
            return earlier.model_id
        client.delete_logged_model(earlier.model_id)
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "equation")]),
        outputs=Schema([ColSpec("string", "answer")]),
    )
    with tempfile.TemporaryDirectory() as scratch:
        code = _serving_code(Path(scratch))
        bundle = Path(scratch) / "bundle"
        shutil.copytree(found.root / "bundle", bundle)
        with _resumed(mlflow, run.info.run_id):
            logged = mlflow.pyfunc.log_model(
                name=MODEL,
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(code)],
                signature=signature,
                input_example=_example(found),
                pip_requirements=[f"{name}=={installed_version(name)}" for name in REQUIREMENTS],
                tags={BUNDLE_TAG: found.bundle_sha256},
            )
    return logged.model_id


def _resumed(mlflow: Any, run_id: str) -> Any:
    # log_model takes its run from the one that is active in this process.
    return mlflow.start_run(run_id=run_id, log_system_metrics=False)


def _points(found: Workspace, time: int) -> "list[Metric]":
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
    numbers |= _seconds(found.root)
    return points + [Metric(name, value, time, 0) for name, value in numbers.items()]


def _seconds(root: Path) -> dict[str, float]:
    """Seconds of the stages that ran here, from `.times.json`, which is no output of DVC.

    A time counts only while the file that its stage wrote is still there: a stage that DVC
    restored from its cache has none.
    """
    try:
        times = json.loads((root / ".times.json").read_bytes())
    except FileNotFoundError:
        return {}
    return {
        f"seconds.{stage}": float(entry["seconds"])
        for stage, entry in times.items()
        if (root / entry["file"]).is_file()
        and hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    }


def _datasets(found: Workspace) -> "list[DatasetInput]":
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import DatasetInput, InputTag

    inputs = []
    for path, md5 in found.data.items():
        name = Path(path).stem
        frame = pd.read_csv(found.root / path, dtype={"answer": str})
        dataset = from_pandas(frame, source=path, name=name, digest=md5)
        tag = InputTag("mlflow.data.context", _CONTEXTS.get(name, name))
        inputs.append(DatasetInput(dataset._to_mlflow_entity(), [tag]))
    return inputs


def _example(found: Workspace) -> pd.DataFrame:
    grammar = load_config(found.root / "bundle").grammar
    asked = [str(Equation(7, operation, 1)) for operation in grammar.operations]
    return pd.DataFrame({"equation": asked})


def _serving_code(into: Path) -> Path:
    """The package `arithmetic` with only the modules that answering needs."""
    import arithmetic

    package = Path(arithmetic.__file__).parent
    target = into / "arithmetic"
    target.mkdir()
    wanted, copied = ["__init__", "engine"], set()
    while wanted:
        module = wanted.pop()
        if module in copied:
            continue
        copied.add(module)
        source = package / f"{module}.py"
        shutil.copyfile(source, target / source.name)
        wanted += [name for name in _imports(source) if (package / f"{name}.py").is_file()]
    return target


def _imports(source: Path) -> list[str]:
    """Names of the `arithmetic` modules that a file imports."""
    names = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "arithmetic":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("arithmetic."):
            names.append(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names += [
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("arithmetic.")
            ]
    return names


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
