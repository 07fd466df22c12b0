"""Which run and which version belong to a digest, when others may be recording the same.

One clone records one at a time (`registry.record`'s lock). Two clones can meet only in the store,
and MLflow has no "create unless there": so whoever has created something looks again, and the
oldest stays. A run that another clone is filling is waited for; if nothing happens to it any more,
its recorder is dead and it is taken up.
"""

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from registry import BUNDLE_TAG, EXPERIMENT, MODEL, store
from registry.errors import DigestMismatch, RegistryProblem, VersionNotFound
from registry.origin import Origin
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

# Seconds without a sign of life after which another clone's recording counts as dead: far more
# than its longest step, making the model's files.
DEAD_AFTER_SECONDS = 30.0
_POLL_SECONDS = 0.5
# Who fills a run, and at which step it is: `<clone> <step>`.
CLAIM_TAG = "recording"
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_GONE = "RESOURCE_DOES_NOT_EXIST"


def clone_of(root: Path) -> str:
    """This clone's name among those that record into one store."""
    place = f"{socket.gethostname()}:{store.root(root)}"
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def experiment(client: "MlflowClient", root: Path) -> str:
    """The id of the project's experiment, made if it is missing; raises RegistryProblem."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        place = store.artifact_location(root)
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=place))
        except MlflowException as error:
            found = client.get_experiment_by_name(EXPERIMENT)  # another clone was faster
            if error.error_code != _EXISTS or found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise RegistryProblem(
            f"the experiment {EXPERIMENT} is in MLflow's trash; bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def registered_model(client: "MlflowClient", description: str) -> None:
    """Make the registered model if it is missing."""
    from mlflow.exceptions import MlflowException

    if client.search_registered_models(f"name = '{MODEL}'"):
        return
    try:
        client.create_registered_model(MODEL, description=description)
    except MlflowException as error:
        if error.error_code != _EXISTS:
            raise


def run_of(
    client: "MlflowClient",
    experiment_id: str,
    found: Workspace,
    origin: Callable[[], Origin],
    mine: str,
) -> "tuple[Run, bool]":
    """The run of this workspace, and whether it is still to be filled, by this process.

    `mine` is this clone's name, from `clone_of`.
    """
    run = _oldest_run(client, experiment_id, found.run_digest)
    if run is None:
        created = _create_run(client, experiment_id, found, origin(), mine)
        run = _oldest_run(client, experiment_id, found.run_digest) or created
        if run.info.run_id != created.info.run_id:
            client.delete_run(created.info.run_id)
    if _is_recorded(run):
        return run, False
    if _claimant(run) not in ("", mine):
        run = _when_quiet(client, run)
        if _is_recorded(run):
            return run, False
    sign_of_life(client, run, mine, "taken up")
    return run, True


def sign_of_life(client: "MlflowClient", run: "Run", clone: str, step: str) -> None:
    """Let other clones see that this one is still filling the run."""
    client.set_tag(run.info.run_id, CLAIM_TAG, f"{clone} {step} {time.time_ns()}")


def version_of(client: "MlflowClient", bundle_sha256: str) -> "ModelVersion | None":
    """The version of a bundle: the oldest, if interrupted recordings left several."""
    return min(
        _versions(client, bundle_sha256), key=lambda version: int(version.version), default=None
    )


def refuse_edited_digest(client: "MlflowClient", model_id: str, bundle_sha256: str) -> None:
    """Raise DigestMismatch if a version has these files already and says another digest of them.

    It was not found by its digest, and would be registered a second time.
    """
    for version in client.search_model_versions(f"name = '{MODEL}'"):
        tag = version.tags.get(BUNDLE_TAG, "nothing")
        if version.source == f"models:/{model_id}" and tag != bundle_sha256:
            raise DigestMismatch(
                f"version {version.version} holds bundle {bundle_sha256[:12]} and its tag "
                f"{BUNDLE_TAG} says {tag[:12]}: it was edited; set it to {bundle_sha256}, or "
                "delete the version, and run `dvc repro`"
            )


def only_version(client: "MlflowClient", bundle_sha256: str) -> "ModelVersion":
    """As `version_of`, once younger ones of the same bundle are deleted.

    A younger one that carries an alias is served by its number: it stays.
    """
    from mlflow.exceptions import MlflowException

    there = sorted(_versions(client, bundle_sha256), key=lambda version: int(version.version))
    if not there:
        raise VersionNotFound(
            f"the version of bundle {bundle_sha256[:12]} was deleted while it was recorded; run "
            "`dvc repro` again"
        )
    for younger in there[1:]:
        try:
            if not client.get_model_version(MODEL, younger.version).aliases:
                client.delete_model_version(MODEL, younger.version)
        except MlflowException as error:
            if error.error_code != _GONE:  # the other clone has seen it as well
                raise
    return there[0]


def _versions(client: "MlflowClient", bundle_sha256: str) -> "list[ModelVersion]":
    return list(
        client.search_model_versions(f"name = '{MODEL}' and tags.{BUNDLE_TAG} = '{bundle_sha256}'")
    )


def _create_run(
    client: "MlflowClient", experiment_id: str, found: Workspace, origin: Origin, mine: str
) -> "Run":
    tags = {
        "run_digest": found.run_digest,
        BUNDLE_TAG: found.bundle_sha256,
        "data_digest": found.data_digest,
        "evaluation_sha256": hashlib.sha256(found.evaluation()).hexdigest(),
        CLAIM_TAG: f"{mine} created {os.getpid()}",
        "mlflow.source.name": "dvc repro",
        **origin.git,
    }
    if tags["git_commit"] != "none":
        tags["mlflow.source.git.commit"] = tags["git_commit"]
    return client.create_run(experiment_id, tags=tags, run_name=origin.run_name)


def _oldest_run(client: "MlflowClient", experiment_id: str, run_digest: str) -> "Run | None":
    """The recorded run of a digest, or the oldest unfinished one."""
    runs = client.search_runs([experiment_id], f"tags.run_digest = '{run_digest}'")
    order = {run.info.run_id: (not _is_recorded(run), run.info.start_time) for run in runs}
    return min(runs, key=lambda run: (order[run.info.run_id], run.info.run_id), default=None)


def _when_quiet(client: "MlflowClient", run: "Run") -> "Run":
    """Wait for another clone's recording: until it is done, or shows no sign of life any more."""
    seen, deadline = run.data.tags.get(CLAIM_TAG), time.monotonic() + DEAD_AFTER_SECONDS
    while time.monotonic() < deadline and not _is_recorded(run):
        time.sleep(_POLL_SECONDS)
        run = client.get_run(run.info.run_id)
        if run.data.tags.get(CLAIM_TAG) != seen:
            seen = run.data.tags.get(CLAIM_TAG)
            deadline = time.monotonic() + DEAD_AFTER_SECONDS
    return run


def _claimant(run: "Run") -> str:
    return run.data.tags.get(CLAIM_TAG, "").split(" ")[0]


def _is_recorded(run: "Run") -> bool:
    return run.data.tags.get("recorded") == "yes"
