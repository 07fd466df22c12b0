"""Convert the pipeline's files to the metrics, data sets and description of an MLflow run."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arithmetic.grammar import OPERATIONS
from registry.dvc_lock import DvcLock

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

# Columns of metrics/history.csv and the metrics they become.
_CURVES = {
    "train_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "validation_loss": "validation/loss",
    "validation_token_accuracy": "validation/token_accuracy",
    "validation_exact_match": "validation/exact_match",
}
# Columns of metrics/grpo.csv that are the same for all operations of a step.
_SHARED = ("gradient_norm", "learning_rate")
_EVALUATION = (
    "errors",
    "equations",
    "exact_match",
    "minimum_margin",
    "hallucinations",
    "infinite_generation",
    "out_of_range",
)
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}


def numbers(root: Path, report: dict[str, Any]) -> dict[str, float]:
    """Return the metrics without steps: of reports/evaluation.json and reports/training.json."""
    training = _read_json(root / "reports" / "training.json")
    found = {f"evaluation/{key}": report.get(key) for key in _EVALUATION}
    for symbol, counts in report.get("by_operation", {}).items():
        found[f"evaluation/errors_{OPERATIONS[symbol].name}"] = counts["errors"]
    found["evaluation/error_rate_bound"] = report.get("sampled", {}).get("error_rate_bound")
    found["never_trained_on/errors"] = report.get("never_trained_on", {}).get("errors")
    for key in ("errors", "exact_match"):
        found[f"test/{key}"] = report.get("test", {}).get(key)
    for key in ("parameters", "steps", "best_step"):
        found[f"train/{key}"] = training.get(key)
    found |= {f"grpo/{key}": value for key, value in training.get("grpo", {}).items()}
    return {key: float(value) for key, value in found.items() if value is not None}


def curves(root: Path) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step of each point in metrics/history.csv and metrics/grpo.csv."""
    for row in _read_csv(root / "metrics" / "history.csv"):
        yield from _points(row, _CURVES)
    rows = _read_csv(root / "metrics" / "grpo.csv")
    for row in rows:
        name = OPERATIONS[row["operation"]].name
        own = row.keys() - {"step", "operation", *_SHARED}
        names = {column: f"grpo/{column}_{name}" for column in sorted(own)}
        if row["operation"] == rows[0]["operation"]:
            names |= {column: f"grpo/{column}" for column in _SHARED}
        yield from _points(row, names)


def _points(row: dict[str, str], names: dict[str, str]) -> Iterator[tuple[str, float, int]]:
    for column, name in names.items():
        value = float(row.get(column) or "nan")
        if not math.isnan(value):
            yield name, value, int(row["step"])


def metrics(root: Path, report: dict[str, Any], time: int) -> "list[Metric]":
    """Return all metrics of a run, at the time (in ms) of its start."""
    from mlflow.entities import Metric

    points = [(name, value, 0) for name, value in numbers(root, report).items()]
    return [Metric(name, value, time, step) for name, value, step in [*points, *curves(root)]]


def datasets(root: Path, lock: DvcLock) -> "list[DatasetInput]":
    """Return the data sets, known by the MD5 that DVC keeps them under."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for path, md5 in sorted(lock.data.items()):
        name = Path(path).stem
        rows = (root / path).read_bytes().count(b"\n") - 1  # without the header
        dataset = Dataset(
            name,
            md5.removesuffix(".dir"),
            source_type="local",
            source=json.dumps({"uri": path}),
            profile=json.dumps({"num_rows": rows}),
        )
        tag = InputTag("mlflow.data.context", _CONTEXTS.get(name, name))
        inputs.append(DatasetInput(dataset, [tag]))
    return inputs


def description(root: Path, report: dict[str, Any], commit: str | None) -> str:
    """Return the run's description in Markdown: headline figures and how to reproduce it."""
    training = _read_json(root / "reports" / "training.json")
    domain = report["domain"]
    operations = " ".join(domain["operations"])
    checkout = f"git checkout {commit[:12]}" if commit else "# not recorded in a git commit"
    scope = "of the whole domain" if report["complete"] else "of a sample of the domain"
    return f"""\
**{report["errors"]:,} errors** in {report["equations"]:,} equations {scope} \
(`{operations}` over 0-{domain["max_operand"]}): exact match {report["exact_match"]:.6%}, \
minimum logit margin of the correct token {report["minimum_margin"]}

{training.get("parameters", "unknown")} parameters, {training.get("steps", "unknown")} training \
steps, model digest `{report["model_digest"]}`

To reproduce it, with the `dvc.lock` and `params.yaml` among this run's artifacts:

    {checkout}
    make setup
    dvc repro
"""


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}
