"""What the registry holds of a version, and whether it is what it was registered as."""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from arithmetic import bundle
from arithmetic.errors import RegistryProblem
from arithmetic.gate import Certificate, read_certificate
from registry import ALIAS, BUNDLE_PATH, BUNDLE_TAG, EXPERIMENT, FILES_TAG, MODEL, store
from registry.digests import file_digests
from registry.errors import DigestMismatch, FilesMissing, VersionNotFound

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_MEND = "check out its commit and run `dvc repro`, which puts it back"


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


def version_number(text: str) -> str:
    """A version's number as somebody typed it, `03` too; raises RegistryProblem."""
    if not (text.isascii() and text.isdigit()):
        raise RegistryProblem(f"{text!r} is no version number; give digits, like 3")
    return str(int(text))


def model_id(version: "ModelVersion") -> str:
    """The MLflow model that a version points to; raises RegistryProblem if it is anything else.

    A `source` may be any address that the store accepts, a folder of its machine included.
    """
    source = str(version.source)
    match = re.fullmatch(r"models:/(m-[0-9a-f]{32})", source)
    if match is None or version.model_id not in (None, match[1]):
        raise RegistryProblem(
            f"version {version.version} has its files outside of the store's own place, at "
            f"{source}, so `dvc repro` did not make it; delete the version and record it again"
        )
    return match[1]


def check_files(client: "MlflowClient", version: "ModelVersion") -> None:
    """Hash all files that the version holds and compare each with what was registered.

    Nothing of it is loaded or executed.

    Raises:
        DigestMismatch: a file was changed, or one was added; the sentence names it.
        FilesMissing: the store has lost some, or recording was killed while it put them back.
        RegistryProblem: the version points out of the store.
    """
    number, registered = version.version, bundle_tag(version)
    model = client.get_logged_model(model_id(version))
    place = client.get_experiment(model.experiment_id).artifact_location.rstrip("/")
    own = f"{place}/models/{model.model_id}/artifacts"
    if model.artifact_location.rstrip("/") != own or _leads_out_of(place, own):
        raise RegistryProblem(
            f"version {number} has its files outside of the store's own place, at "
            f"{model.artifact_location} and not in {own}; delete the version and record it again"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = download(version, Path(scratch))
        actual = file_digests(folder)
        expected = _files_tag(version)
        if expected is not None:
            _compare(expected, actual)
        digest = bundle.digest(folder / BUNDLE_PATH)
    if digest != registered:
        raise DigestMismatch(
            f"its bundle has digest {digest[:12]}, and it was registered with {registered[:12]}"
        )
    if expected is None:
        raise FilesMissing(
            f"version {number} does not say which files it consists of; check out its commit and "
            "run `dvc repro`, which puts them there"
        )


def _leads_out_of(place: str, inside: str) -> bool:
    """Whether a link on this disk leads from a folder of the store to somewhere else."""
    if not place.startswith("file:"):
        return False
    real, folder = (Path(unquote(urlsplit(uri).path)).resolve() for uri in (place, inside))
    return not folder.is_relative_to(real)


def _files_tag(version: "ModelVersion") -> dict[str, str] | None:
    """Path to SHA-256 of a version's files; None if it was registered without."""
    text = version.tags.get(FILES_TAG)
    if text is None:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DigestMismatch(
            f"its tag {FILES_TAG} was edited and lists no files any more; delete the tag and run "
            "`dvc repro`, which writes it"
        ) from error


def _compare(expected: dict[str, str], actual: dict[str, str]) -> None:
    for name in sorted(actual):
        if name not in expected:
            raise DigestMismatch(f"it holds {name}, which was not registered with it")
        if actual[name] != expected[name]:
            raise DigestMismatch(
                f"its file {name} has digest {actual[name][:12]}, and it was registered with "
                f"{expected[name][:12]}"
            )
    missing = sorted(expected.keys() - actual.keys())
    if missing:
        raise FilesMissing(f"{missing[0]} is missing in the store; {_MEND}")


def certificate_of(version: "ModelVersion") -> Certificate:
    """The evaluation that the version's tags point to, checked to be that one and of this bundle.

    Raises:
        RegistryProblem: there is none, it is not the one that was recorded, or it speaks of
            another bundle.
    """
    number = version.version
    pointer = pointer_of(version)
    try:
        content = evaluation_of(pointer["run_id"], pointer["evaluation_sha256"])
    except RegistryProblem as problem:
        raise type(problem)(f"the certificate of version {number}: {problem}") from problem
    certificate = read_certificate(content)
    if certificate.bundle_sha256 != bundle_tag(version):
        raise RegistryProblem(
            f"the certificate of version {number} speaks of bundle "
            f"{certificate.bundle_sha256[:12]}, and the version holds {bundle_tag(version)[:12]}"
        )
    return certificate


def described(certificate: Certificate) -> dict[str, str]:
    """A certificate as a version's tags repeat it for people, and for a service."""
    return {
        "errors": str(certificate.errors),
        "equations": str(certificate.equations),
        "complete": "yes" if certificate.complete else "no",
        "domain": certificate.domain,
    }


def pointer_of(version: "ModelVersion") -> dict[str, str]:
    """`run_id`, `run_digest` and `evaluation_sha256` of a version's certificate."""
    number = version.version
    if "certificate" not in version.tags:
        raise RegistryProblem(
            f"version {number} has no certificate; check out its commit and run `dvc repro`"
        )
    keys = ("run_id", "run_digest", "evaluation_sha256")
    try:
        pointer = json.loads(version.tags["certificate"])
        found = {key: pointer[key] for key in keys}
        if not all(isinstance(value, str) for value in found.values()):
            raise ValueError("not text")
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryProblem(
            f"the tag certificate of version {number} was edited and is no certificate any more; "
            f"check out its commit and run `dvc repro`, which writes it anew"
        ) from error
    return found


def evaluation_of(run_id: str, recorded: str) -> bytes:
    """metrics/evaluation.json of a run, which has the SHA-256 `recorded`.

    Raises:
        RegistryProblem: it was changed.
        FilesMissing: it is not in the store.
    """
    with tempfile.TemporaryDirectory() as scratch:
        uri = f"runs:/{run_id}/metrics/evaluation.json"
        content = _download(uri, "evaluation.json", scratch).read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != recorded:
        raise RegistryProblem(
            f"evaluation.json of run {run_id} has digest {actual[:12]}, and {recorded[:12]} was "
            "recorded; delete it from the store's artifacts and run `dvc repro`"
        )
    return content


def bundle_tag(version: "ModelVersion") -> str:
    """The digest that a version was registered with; raises RegistryProblem if it has none."""
    tag = version.tags.get(BUNDLE_TAG)
    if tag is None:
        raise RegistryProblem(
            f"version {version.version} has no tag {BUNDLE_TAG}, so `dvc repro` did not make it"
        )
    return tag


def download(version: "ModelVersion", into: Path) -> Path:
    """All files of a version, in a folder; raises FilesMissing."""
    folder = _download(f"models:/{model_id(version)}", f"version {version.version}", str(into))
    (folder / "registered_model_meta").unlink(missing_ok=True)  # MLflow's note in a download
    return folder


def download_run(run: "Run", into: Path) -> Path:
    """All files of a run, in a folder; raises FilesMissing."""
    into.mkdir(parents=True, exist_ok=True)
    return _download(str(run.info.artifact_uri), f"run {run.info.run_id}", str(into))


def _download(uri: str, what: str, into: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=into))
    except (MlflowException, OSError) as error:
        if store.is_lost(error) or store.disk_problem(error):
            raise
        raise FilesMissing(f"{what} is not in the store ({uri}); {_MEND}") from error
    if found.is_dir() and not any(found.iterdir()):
        raise FilesMissing(f"{what} is not in the store ({uri}); {_MEND}")
    return found


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
