"""Convert the pipeline's files to the metrics, data sets and description of an MLflow run."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from arithmetic.grammar import OPERATIONS
from registry.dvc_lock import DvcLock

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


def numbers(root: Path, report: dict[str, Any]) -> dict[str, float]:
    """Return the metrics without steps: of reports/evaluation.json and reports/training.json."""
    training = json.loads((root / "reports" / "training.json").read_bytes())
    metrics = {f"evaluation/{key}": report.get(key) for key in _EVALUATION}
    for symbol, counts in report.get("by_operation", {}).items():
        metrics[f"evaluation/errors_{OPERATIONS[symbol].name}"] = counts["errors"]
    metrics["evaluation/error_rate_bound"] = report.get("sampled", {}).get("error_rate_bound")
    metrics["never_trained_on/errors"] = report.get("never_trained_on", {}).get("errors")
    for key in ("errors", "exact_match"):
        metrics[f"test/{key}"] = report.get("test", {}).get(key)
    for key in ("parameters", "steps", "best_step"):
        metrics[f"train/{key}"] = training.get(key)
    metrics |= {f"grpo/{key}": value for key, value in training.get("grpo", {}).items()}
    return {key: float(value) for key, value in metrics.items() if value is not None}


def curves(root: Path) -> dict[int, dict[str, float]]:
    """Return the metrics of each step, from metrics/history.csv and metrics/grpo.csv."""
    points: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in pd.read_csv(root / "metrics" / "history.csv").to_dict("records"):
        points[row["step"]] |= {name: row[key] for key, name in _CURVES.items()}
    for row in pd.read_csv(root / "metrics" / "grpo.csv").to_dict("records"):
        step, operation = row.pop("step"), OPERATIONS[row.pop("operation")].name
        for key, value in row.items():
            points[step][f"grpo/{key}" if key in _SHARED else f"grpo/{key}_{operation}"] = value
    return {
        step: {name: float(value) for name, value in values.items() if pd.notna(value)}
        for step, values in points.items()
    }


def log_datasets(root: Path, lock: DvcLock) -> None:
    """Log the data sets to the active run, under the MD5 that DVC keeps them under."""
    import mlflow
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.meta_dataset import MetaDataset

    for path, md5 in lock.data.items():
        source = get_dataset_source_from_json(json.dumps({"uri": path}), "local")
        name = Path(path).stem
        dataset = MetaDataset(source, name, digest=md5)  # type: ignore[abstract]
        mlflow.log_input(dataset, context=name)


def headline(report: dict[str, Any]) -> str:
    """Return the figures of an evaluation in one sentence of Markdown."""
    domain = report["domain"]
    scope = "of the whole domain" if report["complete"] else "of a sample of the domain"
    return (
        f"**{report['errors']:,} errors** in {report['equations']:,} equations {scope} "
        f"(`{' '.join(domain['operations'])}` over 0-{domain['max_operand']}), "
        f"minimum logit margin of the correct token {report['minimum_margin']}"
    )


def description(root: Path, report: dict[str, Any], commit: str | None) -> str:
    """Return the run's description in Markdown: headline figures and how to reproduce it."""
    training = json.loads((root / "reports" / "training.json").read_bytes())
    checkout = f"git checkout {commit[:12]}" if commit else "# not recorded in a git commit"
    return f"""\
{headline(report)}, exact match {report["exact_match"]:.6%}

{training["parameters"]} parameters, {training["steps"]} training steps, model digest \
`{report["model_digest"]}`

To reproduce it, with the `dvc.lock` and `params.yaml` among this run's artifacts:

    {checkout}
    make setup
    dvc repro
"""
