"""What the registry holds of a version, and whether it is what it was registered as."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic import bundle
from arithmetic.errors import RegistryProblem
from arithmetic.gate import Certificate, read_certificate
from registry import ALIAS, BUNDLE_PATH, BUNDLE_TAG, EXPERIMENT, MODEL, store
from registry.errors import DigestMismatch, VersionNotFound

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def is_registered(client: "MlflowClient") -> bool:
    """Whether the registered model exists at all."""
    return bool(client.search_registered_models(f"name = '{MODEL}'"))


def aliased(client: "MlflowClient") -> str | None:
    """The version that is Production now, None if there is none."""
    if not is_registered(client):
        return None
    found = client.get_registered_model(MODEL).aliases.get(ALIAS)
    return None if found is None else str(found)


def find_version(client: "MlflowClient", number: str) -> "ModelVersion | None":
    """A version by its number, None if it is not there."""
    # All of them are looked through: a number too large for the store's integers is just not there.
    versions = client.search_model_versions(f"name = '{MODEL}'")
    return next((found for found in versions if str(found.version) == number), None)


def get_version(client: "MlflowClient", number: str) -> "ModelVersion":
    """A version by its number; raises VersionNotFound."""
    found = find_version(client, number)
    if found is None:
        there = sorted(int(v.version) for v in client.search_model_versions(f"name = '{MODEL}'"))
        listed = ", ".join(map(str, there[-10:]))
        mend = f"there are {listed}" if len(there) > 1 else f"the only one is {listed}"
        if not there:
            mend = "none is registered yet; run `dvc repro`"
        raise VersionNotFound(f"{MODEL} has no version {number}; {mend}")
    return found


def check_bundle(version: "ModelVersion") -> None:
    """Hash the files that the version holds; raises DigestMismatch or RegistryProblem."""
    registered = _bundle_tag(version)
    with tempfile.TemporaryDirectory() as scratch:
        uri = f"models:/{MODEL}/{version.version}/{BUNDLE_PATH}"
        folder = _download(uri, f"the bundle of version {version.version}", scratch)
        actual = bundle.digest(folder)
    if actual != registered:
        raise DigestMismatch(
            f"its files have digest {actual[:12]}, and it was registered with {registered[:12]}"
        )


def certificate_of(version: "ModelVersion") -> Certificate:
    """The evaluation that the version's tags point to, checked to be that one and of this bundle.

    Raises:
        RegistryProblem: there is none, it is not the one that was recorded, or it speaks of
            another bundle.
    """
    number = version.version
    if "certificate" not in version.tags:
        raise RegistryProblem(
            f"version {number} has no certificate; check out its commit and run `dvc repro`"
        )
    pointer = json.loads(version.tags["certificate"])
    with tempfile.TemporaryDirectory() as scratch:
        uri = f"runs:/{pointer['run_id']}/metrics/evaluation.json"
        content = _download(uri, f"the certificate of version {number}", scratch).read_bytes()
    actual, recorded = hashlib.sha256(content).hexdigest(), pointer["evaluation_sha256"]
    if actual != recorded:
        raise RegistryProblem(
            f"the certificate of version {number} has digest {actual[:12]}, and "
            f"{recorded[:12]} was recorded"
        )
    certificate = read_certificate(content)
    if certificate.bundle_sha256 != _bundle_tag(version):
        raise RegistryProblem(
            f"the certificate of version {number} speaks of bundle "
            f"{certificate.bundle_sha256[:12]}, and the version holds {_bundle_tag(version)[:12]}"
        )
    return certificate


def _bundle_tag(version: "ModelVersion") -> str:
    tag = version.tags.get(BUNDLE_TAG)
    if tag is None:
        raise RegistryProblem(
            f"version {version.version} has no tag {BUNDLE_TAG}, so `dvc repro` did not make it"
        )
    return tag


def _download(uri: str, what: str, into: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=into))
    except (MlflowException, OSError) as error:
        if store.is_lost(error):
            raise
        raise RegistryProblem(f"{what} is not in the store ({uri})") from error


def numbers(start: Path | None = None) -> set[str]:
    """The numbers of all registered versions."""
    with store.opened(start) as client:
        found = client.search_model_versions(f"name = '{MODEL}'")
    return {str(version.version) for version in found}


def census(start: Path | None = None) -> dict[str, int]:
    """How many runs are recorded and unfinished, how many versions there are and are incomplete."""
    with store.opened(start) as client:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
        recorded = sum(run.data.tags.get("recorded") == "yes" for run in runs)
        versions = client.search_model_versions(f"name = '{MODEL}'")
        complete = sum({BUNDLE_TAG, "certificate"} <= set(version.tags) for version in versions)
    return {
        "recorded": recorded,
        "unfinished": len(runs) - recorded,
        "versions": len(versions),
        "incomplete": len(versions) - complete,
    }
