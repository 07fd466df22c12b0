"""Resolve a model URI and download the version's model directory, verified.

    models:/arithmetic-lm@Production     the version that the alias names now
    models:/arithmetic-lm/3              a version
    path/to/model                        a model directory on this disk

Only the files of a model directory are fetched, by their fixed names, and nothing is loaded: no
pickle, no path of the registry's choosing. Needs mlflow-skinny and a server, or mlflow for SQLite.
"""

import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic import artifacts
from arithmetic.errors import InvalidModelError
from registry import DIGEST_TAG, MODEL_NAME, MODEL_PATH, PRODUCTION, SIGNATURE_PATH, signing
from registry.client import open_client, registry_errors
from registry.exceptions import VersionNotFoundError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LOCAL = "local"  # the version of a model directory on this disk

_MODEL_URI = re.compile(r"models:/([^/@:]+)(?:@([^/@:]+)|/([0-9]+))")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_ANOTHER = "register the model again with `dvc repro`, or name another version"


@dataclass(frozen=True)
class ModelVersionRef:
    """Name a version and the digest it was registered with.

    Attributes:
        run_id: the run that it came from, empty for a local directory.
        source: `models:/m-…`, MLflow's address of its files, or the local directory.
    """

    name: str
    version: str
    digest: str
    source: str
    run_id: str = ""


def resolve(model_uri: str) -> ModelVersionRef:
    """Return the version that `model_uri` names now, without downloading it.

    Raises:
        VersionNotFoundError: there is none, or `record` did not register it.
        InvalidModelError: a local directory is not a model directory.
        RegistryUnreachableError, RegistryError: from the store.
    """
    match = _MODEL_URI.fullmatch(model_uri)
    if match is None:
        directory = Path(model_uri)
        if not directory.is_dir():
            message = f"{model_uri!r} is neither a model URI nor a directory"
            raise VersionNotFoundError(message, f"write models:/{MODEL_NAME}@Production")
        digest = artifacts.digest(directory)
        return ModelVersionRef(directory.resolve().name, LOCAL, digest, str(directory))
    name, alias, number = match.groups()
    with registry_errors():
        version = get_version(open_client(), number, alias or PRODUCTION, name)
    digest, source = version.tags.get(DIGEST_TAG, ""), str(version.source)
    title = f"version {version.version} of {name}"
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise VersionNotFoundError(f"{title} has no tag {DIGEST_TAG}", _ANOTHER)
    if not re.fullmatch("models:/m-[0-9a-f]{32}", source):
        message = f"{title} has its files outside of the store, in {source}"
        raise VersionNotFoundError(message, _ANOTHER)
    return ModelVersionRef(name, str(version.version), digest, source, version.run_id or "")


def get_version(
    client: "MlflowClient",
    number: str | None = None,
    alias: str = PRODUCTION,
    name: str = MODEL_NAME,
) -> "ModelVersion":
    """Return the version with a number as somebody typed it, else the one that an alias names.

    Raises:
        VersionNotFoundError: there is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        if number:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        if not number:  # a service asks again and again
            message = f"{name} has no version with the alias {alias}"
            raise VersionNotFoundError(message, "`make promote VERSION=n`") from error
        known = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
        hint = f"the latest are {', '.join(map(str, known[-10:]))}" if known else "run `dvc repro`"
        raise VersionNotFoundError(f"{name} has no version {number}", hint) from error


def alias_target(client: "MlflowClient", alias: str) -> str | None:
    """Return the number of the version that an alias names, None if there is none."""
    models = client.search_registered_models(f"name = '{MODEL_NAME}'")
    number = models[0].aliases.get(alias) if models else None
    return None if number is None else str(number)


def download(ref: ModelVersionRef, into: Path) -> Path:
    """Return a verified directory with the model of `ref`: `into/NAME-VERSION-DIGEST`.

    A complete directory of an earlier download is used again; a local model stays in its place.

    Raises:
        InvalidModelError: files are missing or not the registered ones, or TRUSTED_KEY is set and
            did not sign them.
        RegistryUnreachableError, RegistryError: from the store.
    """
    if ref.version == LOCAL:
        return verify(Path(ref.source), ref.digest)
    target = into / f"{ref.name}-{ref.version}-{ref.digest[:12]}"
    with suppress(InvalidModelError):  # missing, damaged, or signed since: fetched anew
        return verify(target, ref.digest)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".download-") as scratch:
        directory = _fetch(ref, Path(scratch))
        verify(directory, ref.digest)
        signature = signing.signature_path(directory)
        if signature.is_file():
            signature.replace(signing.signature_path(target))
        shutil.rmtree(target, ignore_errors=True)
        directory.rename(target)
    return target


def verify(directory: Path, digest: str) -> Path:
    """Return `directory` if it has this digest and, where TRUSTED_KEY is set, its signature.

    Raises:
        InvalidModelError: it has not.
    """
    actual = artifacts.digest(directory)
    if actual != digest:
        raise InvalidModelError(
            f"{directory.name} has digest {actual[:12]} and was registered with {digest[:12]}",
            _ANOTHER,
        )
    signing.verify(directory)
    return directory


@registry_errors()
def _fetch(ref: ModelVersionRef, scratch: Path) -> Path:
    """Download the files of a model directory, the config first, which names the others."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = open_client()
    location = client.get_logged_model(ref.source.removeprefix("models:/")).artifact_location
    repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    folders = ("artifacts", MODEL_PATH, f"{MODEL_PATH}/{artifacts.DECODERS}")
    present = {info.path for folder in folders for info in repository.list_artifacts(folder)}

    def fetch(path: str) -> None:
        if path not in present:
            message = f"{path} of version {ref.version} of {ref.name} is not in the store"
            raise InvalidModelError(message, _ANOTHER)
        repository.download_artifacts(path, str(scratch))

    fetch(f"{MODEL_PATH}/{artifacts.CONFIG}")
    for name in artifacts.model_files(artifacts.load_config(scratch / MODEL_PATH)):
        fetch(f"{MODEL_PATH}/{name}")
    if SIGNATURE_PATH in present:
        fetch(SIGNATURE_PATH)
    return scratch / MODEL_PATH
