"""Log a finished pipeline as one MLflow run, and register its model as a version.

    python -m stages.register        the last stage of `dvc repro`

A run is identified by the digest of what dvc.lock contains, a version by the digest of its model
directory. So repeating it does nothing, and after a kill at any moment it completes: an unfinished
run is deleted and logged anew, and a version is created together with its tags.
"""

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
    user_name,
)
from registry.commits import head
from registry.dvc_lock import DvcLock, check_workspace, read_lock
from registry.exceptions import StaleWorkspaceError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

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
    import mlflow
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
        mlflow.set_tracking_uri(client.tracking_uri)
        experiment = _get_or_create_experiment(client)
        run_id = _find_finished_run(client, experiment, lock)
        is_new_run = run_id is None
        if run_id is None:
            run_id = _log_run(client, experiment, root, lock, report)
        version = find_version(client, model_digest)
        is_new_version = version is None
        if version is None:
            version = register_model(client, run_id, root / "model", model_digest)
        if version.tags.get(REPORT_TAG) != run_id:
            _describe(client, version.version, run_id, report)
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
        return client.create_experiment(EXPERIMENT, artifact_location(), _EXPERIMENT_TAGS)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _find_finished_run(client: "MlflowClient", experiment: str, lock: DvcLock) -> str | None:
    """Return the run of this lock; delete the ones that a kill or a failure left unfinished."""
    finished = None
    for run in client.search_runs([experiment], f"tags.{RUN_TAG} = '{lock.digest}'"):
        if run.info.status == "FINISHED":
            finished = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
    return finished


def _log_run(
    client: "MlflowClient", experiment: str, root: Path, lock: DvcLock, report: dict[str, Any]
) -> str:
    """Log params, metrics, data sets and files; return the run's id."""
    import mlflow

    commit = head(root)
    dvc_variables = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
    tags = {name: os.environ[name] for name in dvc_variables if os.environ.get(name)} | {
        RUN_TAG: lock.digest,
        "mlflow.user": user_name(),
        "mlflow.source.name": "dvc repro",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": run_content.description(root, report, commit),
        "mlflow.runColor": f"#{lock.digest[:6]}",  # else MLflow's charts draw all runs in gray
    }
    if commit:
        tags["mlflow.source.git.commit"] = commit
    name = tags.get("DVC_EXP_NAME", f"repro-{lock.digest[:8]}")
    run = client.create_run(experiment, tags=tags, run_name=name)  # start_run adds tags of its own
    with mlflow.start_run(run_id=run.info.run_id):  # FAILED if an exception leaves it
        mlflow.log_params(lock.params)
        mlflow.log_metrics(run_content.numbers(root, report))
        for step, values in run_content.curves(root).items():
            mlflow.log_metrics(values, step=step)
        run_content.log_datasets(root, lock)
        for path in ["dvc.lock", "params.yaml", *lock.outs]:
            if not path.startswith(("data/", "model/")):
                mlflow.log_artifact(str(root / path), os.path.dirname(path))
        lineage = {
            RUN_TAG: lock.digest,
            DIGEST_TAG: report["model_digest"],
            "commit": commit,
            "data_md5": lock.data,
        }
        mlflow.log_dict(lineage, "lineage.json")
    return run.info.run_id


def register_model(
    client: "MlflowClient", run_id: str, model: Path, model_digest: str
) -> "ModelVersion":
    """Log the model directory as a pyfunc model of the run; create a version with its digest."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import infer_signature

    operations = artifacts.load_config(model).grammar.operations
    equations = pd.DataFrame({"equation": [f"7{symbol}1=" for symbol in operations]})
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts=_copy_and_sign(model, Path(scratch)),
            code_paths=[str(Path(arithmetic.__file__).parent)],
            signature=infer_signature(equations, pd.DataFrame({"answer": ["8"]})),
            input_example=equations,
            pip_requirements=[f"{name}=={installed(name)}" for name in _REQUIREMENTS],
        )
    if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
        client.create_registered_model(MODEL_NAME, description=_MODEL_DESCRIPTION)
    source, tags = f"models:/{logged.model_id}", {DIGEST_TAG: model_digest}
    return client.create_model_version(MODEL_NAME, source, run_id, tags, model_id=logged.model_id)


def _copy_and_sign(model: Path, scratch: Path) -> dict[str, str]:
    """Copy the model's own files, without stray ones, and sign the copy."""
    directory = scratch / "model"
    for name in artifacts.model_files(artifacts.load_config(model)):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, directory / name)
    signature = signing.sign(directory)
    return {"model": str(directory)} | ({"signature": str(signature)} if signature else {})


def _describe(client: "MlflowClient", number: str, run_id: str, report: dict[str, Any]) -> None:
    """Let a version show its latest evaluation and point at it."""
    client.update_model_version(MODEL_NAME, number, run_content.headline(report))
    for key in ("errors", "equations", "minimum_margin"):
        client.set_model_version_tag(MODEL_NAME, number, key, report[key])
    # Last: as long as it is missing, a repeat describes the version again.
    client.set_model_version_tag(MODEL_NAME, number, REPORT_TAG, run_id)
