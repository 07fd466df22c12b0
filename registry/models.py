"""The files of a version: the bundle as an MLflow model, and their digests.

The files are made in a folder here, hashed, and uploaded: what the store holds can then be compared
file by file with what was registered (`registry.versions`). The same bundle and run give the same
bytes in the same environment, but for a signature (ECDSA draws a number).
"""

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from arithmetic import bundle
from arithmetic.config import load_config
from arithmetic.grammar import Equation
from registry import BUNDLE_TAG, FILES_TAG, MODEL, SIGNATURE_PATH, signing
from registry.digests import file_digests
from registry.errors import StaleWorkspace
from registry.origin import Origin
from registry.workspace import Workspace, param_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def log_model(
    client: "MlflowClient", experiment: str, run: "Run", found: Workspace, origin: Origin
) -> "LoggedModel":
    """The bundle as an MLflow model of the run.

    What an interrupted recording left is used if complete and deleted if not.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    for earlier in client.search_logged_models(
        [experiment], f"tags.{BUNDLE_TAG} = '{found.bundle_sha256}'"
    ):
        if earlier.status == LoggedModelStatus.READY and FILES_TAG in earlier.tags:
            return earlier
        client.delete_logged_model(earlier.model_id)
    model = client.create_logged_model(
        experiment,
        name=MODEL,
        source_run_id=run.info.run_id,
        tags={BUNDLE_TAG: found.bundle_sha256},
        params={key: param_text(value) for key, value in found.params.items()},
    )
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    files = upload(client, model.model_id, run, found, origin)
    client.set_logged_model_tags(model.model_id, {FILES_TAG: files})
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def upload(
    client: "MlflowClient", model_id: str, run: "Run", found: Workspace, origin: Origin
) -> str:
    """Write a model's files into the store; returns the FILES_TAG of what was written."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _write(folder, Path(scratch), model_id, run, found, origin)
        digests = file_digests(folder)
        client.log_model_artifacts(model_id, str(folder))
    return json.dumps(digests, separators=(",", ":"))


def _write(
    folder: Path, scratch: Path, model_id: str, run: "Run", found: Workspace, origin: Origin
) -> None:
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    # A copy: what MLflow reads is read later than it was checked. And of nothing else that lies
    # there: a stray file would be signed, and no service would take the signature.
    copy = scratch / "bundle"
    for name in bundle.files(load_config(found.root / "bundle").grammar.operations):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.root / "bundle" / name, copy / name)
    if bundle.digest(copy) != found.bundle_sha256:
        raise StaleWorkspace("bundle/ was changed while it was recorded; run `dvc repro` again")
    artifacts = {"bundle": str(copy)}
    signature = signing.sign(copy, scratch / Path(SIGNATURE_PATH).name)
    if signature is not None:
        artifacts["signature"] = str(signature)
    created = datetime.fromtimestamp(run.info.start_time / 1000, UTC).replace(tzinfo=None)
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=Model(
            run_id=run.info.run_id,
            model_id=model_id,
            model_uuid=model_id,
            utc_time_created=str(created),
        ),
        python_model=str(origin.code / "pyfunc_model.py"),
        artifacts=artifacts,
        code_paths=[str(origin.code / "arithmetic")],
        signature=ModelSignature(
            inputs=Schema([ColSpec("string", "equation")]),
            outputs=Schema([ColSpec("string", "answer")]),
        ),
        input_example=_example(found),
        pip_requirements=origin.requirements,
    )
    for cache in list(folder.rglob("__pycache__")):  # saving loads the model once
        shutil.rmtree(cache)


def _example(found: Workspace) -> pd.DataFrame:
    grammar = load_config(found.root / "bundle").grammar
    asked = [str(Equation(7, operation, 1)) for operation in grammar.operations]
    return pd.DataFrame({"equation": asked})
