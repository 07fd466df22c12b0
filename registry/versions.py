"""Read versions, aliases and checked evaluations from the registry."""

import json
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
    version = by_number.get(number.lstrip("0"))
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
    title = f"version {version.version}"
    run = _get_run(client, version)
    lock = _parse_lock(_read_artifact(client, run, "dvc.lock"))
    recorded = run.data.tags.get(RUN_TAG)
    if lock.short_digest != recorded:
        raise BrokenLineageError(
            f"dvc.lock of run {run.info.run_id} has digest {lock.short_digest}, and {recorded} "
            "was recorded",
            _REPAIR,
        )
    content = _read_artifact(client, run, REPORT_PATH)
    locked = lock.merged("outs").get(REPORT_PATH)
    if md5_of_bytes(content) != locked:
        raise BrokenLineageError(
            f"{REPORT_PATH} of run {run.info.run_id} has MD5 {md5_of_bytes(content)}, and its "
            f"dvc.lock has {locked}",
            _REPAIR,
        )
    report: dict[str, Any] = json.loads(content)
    model_digest = version.tags.get(DIGEST_TAG)
    if report.get("model_digest") != model_digest:
        raise BrokenLineageError(
            f"the evaluation of {title} is of model {report.get('model_digest')}, and the version "
            f"holds {model_digest}",
            _REPAIR,
        )
    return Evaluation(run, lock, report)


def _get_run(client: "MlflowClient", version: "ModelVersion") -> "Run":
    from mlflow.exceptions import MlflowException

    run_id = version.tags.get(REPORT_TAG)
    message = f"version {version.version} has no evaluation: run {run_id} is not in the store"
    try:
        run = client.get_run(run_id or "none")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise BrokenLineageError(message, _REPAIR) from error
    if run.info.lifecycle_stage != "active":
        raise BrokenLineageError(message, _REPAIR)
    return run


def _read_artifact(client: "MlflowClient", run: "Run", path: str) -> bytes:
    run_id, folder = run.info.run_id, str(Path(path).parent)
    listed = client.list_artifacts(run_id, None if folder == "." else folder)
    if path not in {info.path for info in listed}:
        raise BrokenLineageError(f"run {run_id} holds no {path}", _REPAIR)
    with tempfile.TemporaryDirectory() as scratch:
        return Path(client.download_artifacts(run_id, path, scratch)).read_bytes()


def _parse_lock(content: bytes) -> DvcLock:
    try:
        return parse_lock(parse_yaml(content.decode(), "dvc.lock"))
    except (UnicodeDecodeError, InvalidParamsError, StaleWorkspaceError) as error:
        raise BrokenLineageError(f"a run's dvc.lock does not parse: {error}", _REPAIR) from error
