"""One run and one version from a finished pipeline, in a store that is open.

Every step may be repeated, so recording can be killed at any moment. The tag `recorded` is set
last, so a run without it is taken up again. A version is created together with its tags, in one
request.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arithmetic.gate import read_certificate
from registry import (
    ALIAS,
    BUNDLE_PATH,
    BUNDLE_TAG,
    FILES_TAG,
    MODEL,
    SIGNATURE_PATH,
    claims,
    models,
    projection,
    signing,
    versions,
)
from registry.errors import DigestMismatch, FilesMissing, RegistryProblem
from registry.origin import Origin
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Recorded:
    """Where a pipeline's files are in MLflow.

    Attributes:
        run_id, run_name: its run.
        version: its registered version.
        bundle_sha256: the model of that version.
        new_run, new_version, new_certificate: whether this call made them.
        restored: whether files that were lost from the store were put back.
        signed: whether a version that was there, unsigned or signed by another key, was signed.
    """

    run_id: str
    run_name: str
    version: str
    bundle_sha256: str
    new_run: bool
    new_version: bool
    new_certificate: bool
    restored: bool = False
    signed: bool = False

    def __str__(self) -> str:
        """One line on what was done."""
        digest = self.bundle_sha256[:12]
        place = f"run {self.run_name} ({self.run_id}), version {self.version} of {MODEL}"
        if self.new_version:
            return f"recorded {place}, new, bundle {digest}"
        restored = "; files that the store had lost are back" if self.restored else ""
        restored += "; it is signed by SIGNING_KEY now" if self.signed else ""
        if self.new_run:
            return (
                f"recorded {place}, there already for bundle {digest}, with this run's "
                f"certificate{restored}"
            )
        if self.new_certificate:
            restored = f"; its certificate is now this run's{restored}"
        return f"already recorded: {place}, bundle {digest}{restored}"


def write(
    client: "MlflowClient", root: Path, found: Workspace, origin: Callable[[], Origin]
) -> Recorded:
    """Record `found` into the open store.

    Args:
        root: the clone that records.
        found: the pipeline's files.
        origin: gives their origin; asked only for what is not recorded yet.

    Raises:
        DigestMismatch: the version's files in the store are not the ones it was registered with,
            or its digest there was edited.
        RegistryProblem and subclasses: the store.
    """
    clone = claims.clone_of(root)
    experiment = claims.experiment(client, root)
    run, new_run = claims.run_of(client, experiment, found, origin, clone)
    lost = not new_run and _has_lost_files(client, run, found)
    if new_run or lost:
        projection.fill(client, run, found, origin())
    version = claims.version_of(client, found.bundle_sha256)
    new_version = version is None
    if version is None:
        claims.sign_of_life(client, run, clone, "model")
        version = _register(client, experiment, run, found, origin())
    # A new one as well: its files may be those of an earlier, interrupted recording.
    lost = _put_back(client, version, run, found, origin) or lost
    signed = _sign(client, version, run, found, origin) and not new_version
    new_certificate = _certify(client, version, run, found) and not new_version
    if new_run:
        client.set_tag(run.info.run_id, "version", version.version)
        client.set_terminated(run.info.run_id)
        client.set_tag(run.info.run_id, "recorded", "yes")
    return Recorded(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        version=str(version.version),
        bundle_sha256=found.bundle_sha256,
        new_run=new_run,
        new_version=new_version,
        new_certificate=new_certificate,
        restored=lost,
        signed=signed,
    )


def _register(
    client: "MlflowClient", experiment: str, run: "Run", found: Workspace, origin: Origin
) -> "ModelVersion":
    model = models.log_model(client, experiment, run, found, origin)
    claims.refuse_edited_digest(client, model.model_id, found.bundle_sha256)
    claims.registered_model(
        client, f"Exact arithmetic by a small Transformer; `{ALIAS}` is what is served."
    )
    client.create_model_version(
        MODEL,
        source=f"models:/{model.model_id}",
        run_id=run.info.run_id,
        tags={
            BUNDLE_TAG: found.bundle_sha256,
            FILES_TAG: model.tags[FILES_TAG],
            **_certificate(run, found),
        },
        model_id=model.model_id,
    )
    return claims.only_version(client, found.bundle_sha256)


def _has_lost_files(client: "MlflowClient", run: "Run", found: Workspace) -> bool:
    """Whether a recorded run's evaluation or dvc.lock is gone; a changed evaluation is refused."""
    if "dvc.lock" not in {file.path for file in client.list_artifacts(run.info.run_id)}:
        return True
    try:
        versions.evaluation_of(run.info.run_id, hashlib.sha256(found.evaluation()).hexdigest())
    except FilesMissing:
        return True
    return False


def _put_back(
    client: "MlflowClient",
    version: "ModelVersion",
    run: "Run",
    found: Workspace,
    origin: Callable[[], Origin],
) -> bool:
    """Restore a version's files if the store has lost some; whether it did."""
    try:
        versions.check_files(client, version)
    except FilesMissing as problem:
        model = client.get_logged_model(versions.model_id(version))
        listed = version.tags.get(FILES_TAG, "") + model.tags.get(FILES_TAG, "")
        if SIGNATURE_PATH in listed and signing.configured() is None:
            raise RegistryProblem(
                f"{problem}; the version is signed, so set SIGNING_KEY for that"
            ) from problem
        _replace_files(client, version, run, found, origin())
        return True
    except DigestMismatch as problem:
        place = client.get_logged_model(versions.model_id(version)).artifact_location
        raise DigestMismatch(
            f"version {version.version}: {problem}; find out who changed it, delete {place} and "
            "run `dvc repro`, which puts the files back"
        ) from problem
    return False


def _sign(
    client: "MlflowClient",
    version: "ModelVersion",
    run: "Run",
    found: Workspace,
    origin: Callable[[], Origin],
) -> bool:
    """Sign a version's bundle if a key is configured and has not signed it yet; whether it did."""
    if signing.configured() is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        folder = versions.download(version, Path(scratch))
        if signing.is_signed_as_configured(folder / BUNDLE_PATH, folder / SIGNATURE_PATH):
            return False
    _replace_files(client, version, run, found, origin())
    return True


def _replace_files(
    client: "MlflowClient", version: "ModelVersion", run: "Run", found: Workspace, origin: Origin
) -> None:
    """Write a version's files anew.

    The tag is taken off while files are written, so that a kill between two of them is repaired by
    the next recording and not taken for tampering. The model's tag stays the whole time.
    """
    fresh = client.get_model_version(MODEL, version.version)
    if FILES_TAG in fresh.tags:
        client.delete_model_version_tag(MODEL, version.version, FILES_TAG)
    model_id = versions.model_id(version)
    files = models.upload(client, model_id, run, found, origin)
    client.set_logged_model_tags(model_id, {FILES_TAG: files})
    client.set_model_version_tag(MODEL, version.version, FILES_TAG, files)


def _certify(client: "MlflowClient", version: "ModelVersion", run: "Run", found: Workspace) -> bool:
    """Let the version's tags speak of the latest evaluation; whether that changed them.

    `certificate` is one tag, so that no interruption can leave half of it; the others repeat it
    for people and are set before it.
    """
    wanted = _certificate(run, found)
    missing = {key: value for key, value in wanted.items() if version.tags.get(key) != value}
    for key, value in sorted(missing.items(), key=lambda item: item[0] == "certificate"):
        client.set_model_version_tag(MODEL, version.version, key, value)
    return bool(missing)


def _certificate(run: "Run", found: Workspace) -> dict[str, str]:
    """The tags by which a version points to its evaluation."""
    content = found.evaluation()
    pointer: dict[str, Any] = {
        "run_id": run.info.run_id,
        "run_digest": found.run_digest,
        "evaluation_sha256": hashlib.sha256(content).hexdigest(),
    }
    return {
        "certificate": json.dumps(pointer, sort_keys=True),
        **versions.described(read_certificate(content)),
    }
