"""Read versions, aliases and checked evaluations from the registry."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arithmetic.errors import InvalidParamsError
from registry import DIGEST_TAG, MODEL_NAME, REPORT_PATH, REPORT_TAG, RUN_TAG
from registry.dvc_lock import DvcLock, md5_of_bytes, parse_lock, parse_yaml
from registry.exceptions import BrokenLineageError, StaleWorkspaceError, VersionNotFoundError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_REPAIR = "check out its commit, delete the run in MLflow and run `dvc repro`"


def alias_target(client: "MlflowClient", alias: str) -> str | None:
    """Return the number of the version that an alias names, None if there is none."""
    models = client.search_registered_models(f"name = '{MODEL_NAME}'")
    number = models[0].aliases.get(alias) if models else None
    return None if number is None else str(number)


def get_version(client: "MlflowClient", number: str) -> "ModelVersion":
    """Return a version by its number as somebody typed it; raise VersionNotFoundError."""
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    by_number = {str(version.version): version for version in versions}
    version = by_number.get(number)
    if version is None:
        listed = ", ".join(sorted(by_number, key=int)[-10:])
        hint = f"the latest are {listed}" if listed else "none is registered: run `dvc repro`"
        raise VersionNotFoundError(f"{MODEL_NAME} has no version {number}", hint)
    return version


class Evaluation(NamedTuple):
    """Hold a version's latest evaluation: its run, the run's dvc.lock, and the report."""

    run: "Run"
    lock: DvcLock
    report: dict[str, Any]


def get_evaluation(client: "MlflowClient", version: "ModelVersion") -> Evaluation:
    """Return the evaluation that a version points at.

    Raises:
        BrokenLineageError: there is none, it was edited, or it is of another model.
    """
    run = _get_run(client, version)
    try:
        lock = parse_lock(parse_yaml(_read_artifact(client, run, "dvc.lock"), "its dvc.lock"))
    except (InvalidParamsError, StaleWorkspaceError) as error:
        message = f"run {run.info.run_id} has no valid dvc.lock: {error}"
        raise BrokenLineageError(message, _REPAIR) from error
    check_link("run -> dvc.lock", lock.digest, run.data.tags.get(RUN_TAG))
    content = _read_artifact(client, run, REPORT_PATH)
    check_link("dvc.lock -> evaluation", md5_of_bytes(content), lock.outs[REPORT_PATH])
    report: dict[str, Any] = json.loads(content)
    check_link("evaluation -> version", report["model_digest"], version.tags.get(DIGEST_TAG))
    return Evaluation(run, lock, report)


def check_link(ends: str, actual: object, expected: object) -> None:
    """Raise BrokenLineageError if the two ends of a link differ."""
    if actual != expected:
        raise BrokenLineageError(f"{ends}: {actual} and not {expected}", _REPAIR)


def _get_run(client: "MlflowClient", version: "ModelVersion") -> "Run":
    run_id = version.tags.get(REPORT_TAG)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id = '{run_id}'")
    if not runs:
        message = f"version {version.version} has no evaluation: run {run_id} is not in the store"
        raise BrokenLineageError(message, _REPAIR)
    return runs[0]


def _read_artifact(client: "MlflowClient", run: "Run", path: str) -> bytes:
    run_id = run.info.run_id
    listed = client.list_artifacts(run_id, os.path.dirname(path))
    if path not in {info.path for info in listed}:
        raise BrokenLineageError(f"run {run_id} holds no {path}", _REPAIR)
    with tempfile.TemporaryDirectory() as scratch:
        return Path(client.download_artifacts(run_id, path, scratch)).read_bytes()
