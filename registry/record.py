"""record: the pipeline's files to one MLflow run and one registered version.

    python -m registry.record       in the repository's root; the last stage of `dvc repro`

The files are the truth and MLflow is their projection, so recording twice adds nothing. A run is
known by the tag `run_digest` (what dvc.lock says of the stages), a version by the tag
`bundle_sha256`. The same bundle evaluated anew is a new run, whose certificate goes to the existing
version.

Recording can be killed at any moment. The tag `recorded` is set last, so a run without it is taken
up again: every step of `_fill` may be repeated on the same run. A version is created together with
its tags, in one request.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arithmetic.errors import reported
from arithmetic.gate import read_certificate
from registry import ALIAS, BUNDLE_TAG, EXPERIMENT, MODEL, projection, store, workspace
from registry.errors import RegistryProblem
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Recorded:
    """Where the workspace is in MLflow.

    Attributes:
        run_id, run_name: its run.
        version: its registered version.
        bundle_sha256: the model of that version.
        new_run, new_version, new_certificate: whether this call made them.
    """

    run_id: str
    run_name: str
    version: str
    bundle_sha256: str
    new_run: bool
    new_version: bool
    new_certificate: bool


def record(root: Path) -> Recorded:
    """Record the finished pipeline in `root`; repeat as often as you like.

    Raises:
        StaleWorkspace: the files are not what dvc.lock says.
        BrokenBundle: the bundle is incomplete.
        RegistryUnreachable: no answer from the store.
        RegistryProblem: the store refuses.
    """
    found = workspace.read(root)
    with _one_at_a_time(root), store.opened(root) as client:
        experiment = _experiment(client, root)
        run, new_run = _run(client, experiment, found)
        if new_run:
            projection.fill(client, run, found)
        version, new_version = _version(client, experiment, run, found)
        new_certificate = not new_version and _certify(client, version, run, found)
        if new_run:
            client.set_tag(run.info.run_id, "version", version.version)
            client.set_tag(run.info.run_id, "recorded", "yes")
            client.set_terminated(run.info.run_id)
    return Recorded(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        version=str(version.version),
        bundle_sha256=found.bundle_sha256,
        new_run=new_run,
        new_version=new_version,
        new_certificate=new_certificate,
    )


def version_of(bundle_sha256: str, start: Path | None = None) -> str | None:
    """The number of the version that holds this bundle, None if it is not registered."""
    with store.opened(start) as client:
        version = _find_version(client, bundle_sha256)
    return None if version is None else str(version.version)


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Wait for other recordings into the same store: `dvc exp run --jobs 2` runs two pipelines."""
    folder = store.root(root) / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow-record.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, or the process dies
        yield


def _experiment(client: "MlflowClient", root: Path) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return client.create_experiment(EXPERIMENT, artifact_location=store.artifact_location(root))
    if found.lifecycle_stage == "deleted":
        raise RegistryProblem(
            f"the experiment {EXPERIMENT} is in MLflow's trash; bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return found.experiment_id


def _run(client: "MlflowClient", experiment: str, found: Workspace) -> "tuple[Run, bool]":
    """The run of this workspace, and whether it is still to be filled."""
    runs = client.search_runs([experiment], f"tags.run_digest = '{found.run_digest}'")
    for run in runs:
        if run.data.tags.get("recorded") == "yes":
            return run, False
    if runs:
        return runs[0], True
    name = os.environ.get("DVC_EXP_NAME") or f"repro-{found.run_digest[:8]}"
    tags = {
        "run_digest": found.run_digest,
        BUNDLE_TAG: found.bundle_sha256,
        "data_digest": found.data_digest,
        "dvc_lock_sha256": found.lock_sha256,
        "evaluation_sha256": hashlib.sha256(found.evaluation()).hexdigest(),
        **workspace.git_state(found.root),
    }
    tags["mlflow.source.name"] = "dvc repro"
    if tags["git_commit"] != "none":
        tags["mlflow.source.git.commit"] = tags["git_commit"]
    return client.create_run(experiment, tags=tags, run_name=name), True


def _find_version(client: "MlflowClient", bundle_sha256: str) -> "ModelVersion | None":
    versions = client.search_model_versions(
        f"name = '{MODEL}' and tags.{BUNDLE_TAG} = '{bundle_sha256}'"
    )
    return min(versions, key=lambda version: int(version.version), default=None)


def _version(
    client: "MlflowClient", experiment: str, run: "Run", found: Workspace
) -> "tuple[ModelVersion, bool]":
    """The version of this bundle, and whether it was made now."""
    version = _find_version(client, found.bundle_sha256)
    if version is not None:
        return version, False
    model_id = projection.log_model(client, experiment, run, found)
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(
            MODEL,
            description=f"Exact arithmetic by a small Transformer; `{ALIAS}` is what is served.",
        )
    tags = {BUNDLE_TAG: found.bundle_sha256, **_certificate(run, found)}
    version = client.create_model_version(
        MODEL,
        source=f"models:/{model_id}",
        run_id=run.info.run_id,
        tags=tags,
        model_id=model_id,
    )
    return version, True


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
    certificate = read_certificate(content)
    pointer: dict[str, Any] = {
        "run_id": run.info.run_id,
        "run_digest": found.run_digest,
        "evaluation_sha256": hashlib.sha256(content).hexdigest(),
    }
    return {
        "certificate": json.dumps(pointer, sort_keys=True),
        "errors": str(certificate.errors),
        "equations": str(certificate.equations),
        "complete": "yes" if certificate.complete else "no",
        "domain": certificate.domain,
    }


def report(recorded: Recorded) -> str:
    """One line on what `record` did."""
    digest = recorded.bundle_sha256[:12]
    place = f"run {recorded.run_name} ({recorded.run_id}), version {recorded.version} of {MODEL}"
    if recorded.new_version:
        return f"recorded {place}, new, bundle {digest}"
    if recorded.new_run:
        return f"recorded {place}, there already for bundle {digest}, with this run's certificate"
    if recorded.new_certificate:
        return f"already recorded: {place}, bundle {digest}; its certificate is now this run's"
    return f"already recorded: {place}, bundle {digest}"


def main() -> None:
    with reported():
        print(report(record(Path.cwd())))


if __name__ == "__main__":
    main()
