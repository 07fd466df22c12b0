"""Log a finished pipeline as one MLflow run, and register its model as a version.

    python -m stages.register        the last stage of `dvc repro`

A run is identified by the digest of what dvc.lock contains, a version by the digest of its model
directory. So repeating it does nothing, and after a kill at any moment it completes: an unfinished
run is deleted and logged anew, and a version is created together with its tags.
"""

import getpass
import json
import os
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import arithmetic
from arithmetic import artifacts
from registry import (
    DIGEST_TAG,
    EXPERIMENT,
    MODEL_NAME,
    REPORT_PATH,
    REPORT_TAG,
    RUN_TAG,
    run_content,
    signing,
)
from registry.client import (
    artifact_location,
    open_client,
    registry_errors,
    repository_root,
    tracking_uri,
)
from registry.commits import head, is_dirty
from registry.dvc_lock import REPRO, DvcLock, check_workspace, read_lock
from registry.exceptions import StaleWorkspaceError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo
    from mlflow.entities.model_registry import ModelVersion

_DVC_VARIABLES = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
_BATCH = 1000  # the most metrics that a server takes in one request
_EXPERIMENT_TAGS = {
    # MLflow's pages show the columns of training runs for this kind, else those of GenAI.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Each run is one pipeline (`dvc repro` or `dvc exp run`): params, "
    "training curves, the evaluation over the whole domain, and the files to reproduce it.",
}
_MODEL_DESCRIPTION = (
    "A Transformer that computes integer arithmetic exactly. Each version holds a model directory "
    "(`artifacts/model`) and answers as a pyfunc model: a column `equation` in, a column `answer` "
    "out. Services follow the alias `Production`."
)
# Without a color, MLflow's charts draw all runs in gray.
_COLOR_TAG = "mlflow.runColor"
_COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948")
# What a version needs to answer as a pyfunc model, pinned to what is installed here.
_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pydantic")


class Recorded(NamedTuple):
    """Hold where a pipeline's results are in MLflow, and what was new."""

    run_id: str
    version: str
    model_digest: str
    is_new_run: bool
    is_new_version: bool

    def __str__(self) -> str:
        verb = "registered" if self.is_new_version else "already registered"
        run = "new run" if self.is_new_run else "run"
        return (
            f"{verb}: {MODEL_NAME} version {self.version}, model {self.model_digest[:12]}, "
            f"{run} {self.run_id}"
        )


@registry_errors()
def record(root: Path) -> Recorded:
    """Log and register the finished pipeline in `root`, unless that is done already.

    Raises:
        StaleWorkspaceError: the files are not the ones in dvc.lock.
        InvalidModelError: the model directory is incomplete.
        RegistryUnreachableError, RegistryError: from the store.
    """
    from filelock import FileLock

    lock = read_lock(root)
    check_workspace(root, lock)
    model_digest = artifacts.digest(root / "model")
    report = json.loads((root / REPORT_PATH).read_bytes())
    if report.get("model_digest") != model_digest:
        message = f"{REPORT_PATH} is of another model than model/ ({model_digest[:12]})"
        raise StaleWorkspaceError(message, "run `dvc repro --force evaluate`")
    lock_file = repository_root() / ".dvc" / "tmp" / "register.lock"
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_file):  # `dvc exp run --jobs 2` runs two pipelines
        client = open_client()
        experiment = _get_or_create_experiment(client)
        run_id = _find_finished_run(client, experiment, lock)
        is_new_run = run_id is None
        if run_id is None:
            run_id = _log_run(client, experiment, root, lock, report)
        version = find_version(client, model_digest)
        is_new_version = version is None
        if version is None:
            model_id = _log_model(client, experiment, run_id, root, model_digest)
            version = _create_version(client, model_id, run_id, report)
        _describe_version(client, version, run_id, report)
    return Recorded(run_id, str(version.version), model_digest, is_new_run, is_new_version)


def find_version(client: "MlflowClient", model_digest: str) -> "ModelVersion | None":
    """Return the first version with this model, None if there is none."""
    versions = client.search_model_versions(
        f"name = '{MODEL_NAME}' and tags.{DIGEST_TAG} = '{model_digest}'"
    )
    return min(versions, key=lambda version: int(version.version), default=None)


def _get_or_create_experiment(client: "MlflowClient") -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        location = artifact_location(tracking_uri())
        return client.create_experiment(EXPERIMENT, location, _EXPERIMENT_TAGS)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    for key, value in _EXPERIMENT_TAGS.items():
        if key not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return experiment.experiment_id


def _find_finished_run(client: "MlflowClient", experiment: str, lock: DvcLock) -> str | None:
    """Return the run of this lock; delete the ones that a kill or a failure left unfinished."""
    query = f"tags.{RUN_TAG} = '{lock.short_digest}'"
    finished = None
    for run in client.search_runs([experiment], query, order_by=["attributes.start_time"]):
        if run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
        elif finished is None:
            finished = run.info.run_id
    return finished


def _log_run(
    client: "MlflowClient", experiment: str, root: Path, lock: DvcLock, report: dict[str, Any]
) -> str:
    import mlflow

    commit = head(root)
    dvc = {name: os.environ[name] for name in _DVC_VARIABLES if os.environ.get(name)}
    tags = {
        RUN_TAG: lock.short_digest,
        "mlflow.user": user_name(),
        "mlflow.source.name": "dvc repro",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": run_content.description(root, report, commit),
        _COLOR_TAG: _next_color(client, experiment),
        **({"mlflow.source.git.commit": commit} if commit else {}),
        **dvc,
    }
    name = dvc.get("DVC_EXP_NAME") or f"repro-{lock.digest[:8]}"
    run = client.create_run(experiment, tags=tags, run_name=name)
    run_id = run.info.run_id
    mlflow.set_tracking_uri(client.tracking_uri)
    with mlflow.start_run(run_id=run_id):  # FAILED if an exception leaves it, else FINISHED
        _log_content(client, run.info, root, lock, report)
        lineage = {
            RUN_TAG: lock.digest,
            DIGEST_TAG: report["model_digest"],
            "git": {"commit": commit, "dirty": is_dirty(root)},
            "dvc_experiment": dvc,
            "data_md5": lock.data,
            "stages": lock.stages,
        }
        client.log_dict(run_id, lineage, "lineage.json")
    return run_id


def _next_color(client: "MlflowClient", experiment: str) -> str:
    """Return the color after that of the latest run."""
    latest = client.search_runs([experiment], max_results=1)
    used = latest[0].data.tags.get(_COLOR_TAG) if latest else None
    return _COLORS[(_COLORS.index(used) + 1) % len(_COLORS)] if used in _COLORS else _COLORS[0]


def _log_content(
    client: "MlflowClient", run: "RunInfo", root: Path, lock: DvcLock, report: dict[str, Any]
) -> None:
    """Log params, metrics, data sets and files."""
    from mlflow.entities import Param

    params = [Param(k, v if isinstance(v, str) else json.dumps(v)) for k, v in lock.params.items()]
    metrics = run_content.metrics(root, report, run.start_time)
    client.log_batch(run.run_id, params=params)
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run.run_id, metrics=metrics[start : start + _BATCH])
    client.log_inputs(run.run_id, datasets=run_content.datasets(root, lock))
    for path in ["dvc.lock", "params.yaml", *lock.merged("outs")]:
        if path.startswith(("dvc.lock", "params.yaml", "metrics/", "reports/")):
            folder = str(Path(path).parent) if "/" in path else None
            client.log_artifact(run.run_id, str(root / path), folder)


def _log_model(
    client: "MlflowClient", experiment: str, run_id: str, root: Path, model_digest: str
) -> str:
    """Log the model directory as a pyfunc model of the run; return MLflow's id of it.

    No version holds this model, so what an earlier attempt logged of it is deleted.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    for old in client.search_logged_models([experiment], f"tags.{DIGEST_TAG} = '{model_digest}'"):
        client.delete_logged_model(old.model_id)
    operations = artifacts.load_config(root / "model").grammar.operations
    mlflow.set_tracking_uri(client.tracking_uri)
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts=_copy_and_sign(root / "model", Path(scratch), model_digest),
            code_paths=[str(Path(arithmetic.__file__).parent)],
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "equation")]),
                outputs=Schema([ColSpec("string", "answer")]),
            ),
            input_example=pd.DataFrame({"equation": [f"7{symbol}1=" for symbol in operations]}),
            pip_requirements=[f"{name}=={installed(name)}" for name in _REQUIREMENTS],
            tags={DIGEST_TAG: model_digest},
        )
    return logged.model_id


def _copy_and_sign(model: Path, scratch: Path, model_digest: str) -> dict[str, str]:
    """Copy the model's own files, without stray ones, and check and sign the copy."""
    directory = scratch / "model"
    for name in artifacts.model_files(artifacts.load_config(model)):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, directory / name)
    if artifacts.digest(directory) != model_digest:
        raise StaleWorkspaceError("model/ was changed while it was registered", REPRO)
    signature = signing.sign(directory)
    signed = {} if signature is None else {"signature": str(signature)}
    return {"model": str(directory), **signed}


def _create_version(
    client: "MlflowClient", model_id: str, run_id: str, report: dict[str, Any]
) -> "ModelVersion":
    """Register a logged model; one request creates the version with its tags."""
    if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
        client.create_registered_model(MODEL_NAME, description=_MODEL_DESCRIPTION)
    return client.create_model_version(
        MODEL_NAME,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags={DIGEST_TAG: report["model_digest"], **_version_tags(run_id, report)},
        description=_version_description(report),
        model_id=model_id,
    )


def _describe_version(
    client: "MlflowClient", version: "ModelVersion", run_id: str, report: dict[str, Any]
) -> None:
    """Let a version point at its latest evaluation."""
    for key, value in _version_tags(run_id, report).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(MODEL_NAME, version.version, key, value)
    text = _version_description(report)
    if version.description != text:
        client.update_model_version(MODEL_NAME, version.version, text)


def _version_tags(run_id: str, report: dict[str, Any]) -> dict[str, str]:
    readable = {key: str(report[key]) for key in ("errors", "equations", "minimum_margin")}
    return {**readable, REPORT_TAG: run_id}


def _version_description(report: dict[str, Any]) -> str:
    domain = report["domain"]
    return (
        f"{report['errors']:,} errors in {report['equations']:,} equations "
        f"(`{' '.join(domain['operations'])}` over 0-{domain['max_operand']}), minimum margin "
        f"{report['minimum_margin']}"
    )


def user_name() -> str:
    """Return the user's name; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
