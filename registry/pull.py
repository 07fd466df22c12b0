"""A registered version's bundle, from a tracking server to a verified folder.

Plain REST, no MLflow, which would cost a service time to start and memory. The files come
through the server (`/model-versions/get-artifact`), so it works wherever the server keeps them, its
own disk included. Only the files of a bundle are asked for, by fixed names.

`MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`, are sent to
servers that want to know who asks.
"""

import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from arithmetic import bundle
from arithmetic.config import load_config
from arithmetic.errors import BrokenBundle, RegistryProblem
from registry import ALIAS, BUNDLE_PATH, BUNDLE_TAG, SIGNATURE_PATH, signature
from registry.errors import DigestMismatch, RegistryUnreachable, VersionNotFound, shown

TIMEOUT_SECONDS = 30.0
LARGEST_FILE_BYTES = 64 * 1024 * 1024  # more is no bundle of ours

_API = "/api/2.0/mlflow"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_MODEL_URI = re.compile(r"models:/([^/@:]+)(?:@([^/@]+)|/([0-9]+))")


@dataclass(frozen=True)
class Pulled:
    """A version on this disk: `bundle` is a folder with its files, checked.

    `errors` is how many wrong answers over its whole domain its certificate admits.
    """

    name: str
    version: str
    bundle: Path
    bundle_sha256: str
    errors: int = 0


@dataclass(frozen=True)
class Resolved:
    """Which version a model URI means at this moment, and what it was registered with.

    `errors` is how many wrong answers its certificate admits, 0 where it does not say; `run_id` the
    MLflow run that it came from, empty if there is none.
    """

    name: str
    version: str
    bundle_sha256: str
    errors: int = 0
    run_id: str = ""


class _NoSuchFile(BrokenBundle):
    """A version has no file of this name."""


def pull(
    model_uri: str,
    tracking_uri: str,
    into: Path,
    transport: httpx.BaseTransport | None = None,
) -> Pulled:
    """Download the version that `model_uri` names to `into/<name>-<version>-<digest>`.

    A folder that is there already, with the right digest, is used as it is.

    Args:
        model_uri: `models:/NAME@ALIAS` or `models:/NAME/3`.
        tracking_uri: http(s) address of an MLflow server.
        into: a folder; made if missing.
        transport: instead of the network, for tests.

    Raises:
        RegistryUnreachable: no answer, no permission, or a server error.
        VersionNotFound: no such model, version or alias, or not one of ours.
        BrokenBundle: a file is missing or far too large.
        DigestMismatch: the files are not the ones that were registered.
        RegistryProblem: one of the two addresses is malformed.
    """
    with connect(tracking_uri, transport) as client:
        return fetch(client, find(client, model_uri), into)


def fetch(client: httpx.Client, found: Resolved, into: Path) -> Pulled:
    """The files of a version that `find` found, as `pull` brings them."""
    target = into / f"{found.name}-{found.version}-{found.bundle_sha256[:12]}"
    here = Pulled(found.name, found.version, target, found.bundle_sha256, found.errors)
    if target.is_dir() and is_intact(target, found.bundle_sha256):
        _fetch_signature(client, found, target)
        return here
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".pull-") as scratch:
        fresh = Path(scratch) / "bundle"
        (fresh / bundle.DECODERS).mkdir(parents=True)
        # The config first: it says for which operations there are graphs.
        _download(client, found, f"{BUNDLE_PATH}/{bundle.CONFIG}", fresh / bundle.CONFIG)
        for file_name in bundle.files(load_config(fresh).grammar.operations):
            if file_name != bundle.CONFIG:
                _download(client, found, f"{BUNDLE_PATH}/{file_name}", fresh / file_name)
        _fetch_signature(client, found, fresh)
        actual = bundle.digest(fresh)
        if actual != found.bundle_sha256:
            raise DigestMismatch(
                f"version {found.version} of {found.name} was registered with digest "
                f"{found.bundle_sha256[:12]} and its files have {actual[:12]}; "
                "promote or name another version"
            )
        # Other processes of the same service may be at the same: whoever is first is right.
        with _alone_in(into):
            if not is_intact(target, found.bundle_sha256):
                if target.exists():
                    target.rename(Path(scratch) / "damaged")
                fresh.rename(target)
    return here


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """A lock on a folder, which leaves no file in it and goes when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def resolve(
    model_uri: str, tracking_uri: str, transport: httpx.BaseTransport | None = None
) -> Resolved:
    """Which version `model_uri` means now, without downloading it; raises as `pull`."""
    with connect(tracking_uri, transport) as client:
        return find(client, model_uri)


def connect(
    tracking_uri: str,
    transport: httpx.BaseTransport | None = None,
    timeout: float = TIMEOUT_SECONDS,
    credentials: tuple[str, str, str] | None = None,
) -> httpx.Client:
    """A client of an MLflow server; raises RegistryProblem.

    `credentials` are user, password and token, in place of those of the environment.
    Making one reads all certificate authorities, so who asks often keeps it.
    """
    if not re.match(r"https?://[^/]", tracking_uri, re.IGNORECASE):
        raise RegistryProblem(
            "the service needs an MLflow server and MLFLOW_TRACKING_URI is "
            f"{shown(tracking_uri)!r}; give it an http:// address (`make serve` starts a server "
            "over the local store)"
        )
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    given = credentials or [os.environ.get(name, "") for name in names]
    # A secret read from a file often ends in a newline.
    user, password, token = (one.rstrip("\r\n") for one in given)
    if not (token.isascii() and token.isprintable()):  # its characters are shown to nobody
        raise RegistryProblem(
            "the token for the MLflow server holds a character that no header may hold; correct "
            "MLFLOW_TRACKING_TOKEN or OPERATOR_TOKEN"
        )
    try:
        httpx.URL(tracking_uri).host.encode("idna")
        return httpx.Client(
            base_url=tracking_uri.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"} if token and not user else {},
            auth=(user, password) if user else None,
            timeout=timeout,
            transport=transport,
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise RegistryProblem(
            f"MLFLOW_TRACKING_URI is {shown(tracking_uri)!r}, which is no address; correct it"
        ) from error
    except (OSError, ImportError, ValueError) as error:
        raise RegistryProblem(
            f"no connection to the MLflow server can be made ({error}); correct SSL_CERT_FILE, "
            "SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
        ) from error


def find(client: httpx.Client, model_uri: str) -> Resolved:
    """Which version `model_uri` means now; raises as `pull`."""
    match = _MODEL_URI.fullmatch(model_uri)
    if match is None:
        raise RegistryProblem(
            f"{model_uri!r} names no model version; write models:/arithmetic-lm@Production or "
            "models:/arithmetic-lm/3"
        )
    name, alias, version = match.groups()
    if alias is not None:
        missing = f"model {name} has no version with the alias {alias!r}; " + (
            "promote one first"
            if alias == ALIAS
            else "set it (`make candidate VERSION=…` sets Candidate)"
        )
        found = _get(client, "registered-models/alias", {"name": name, "alias": alias}, missing)
    else:
        missing = f"model {name} has no version {version}; `mlflow ui` shows which there are"
        query = {"name": name, "version": version}
        found = _get(client, "model-versions/get", query, missing)
    found_version = str(found["version"])
    source = str(found.get("source", ""))
    if not re.fullmatch(r"models:/m-[0-9a-f]{32}", source):
        raise VersionNotFound(
            f"version {found_version} of {name} has its files outside of the store's own place, at "
            f"{source}, so it is none that `python -m registry.record` registered; name another "
            "version"
        )
    tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
    digest = tags.get(BUNDLE_TAG, "")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise VersionNotFound(
            f"version {found_version} of {name} has no tag {BUNDLE_TAG}, so it is none that "
            "`python -m registry.record` registered; name another version"
        )
    errors = tags.get("errors", "")
    return Resolved(
        name,
        found_version,
        digest,
        int(errors) if re.fullmatch("[0-9]{1,18}", errors) else 0,
        str(found.get("run_id") or ""),
    )


def artifact(client: httpx.Client, run_id: str, path: str) -> bytes | None:
    """A small file of a run; None if the run has none.

    Raises:
        RegistryUnreachable: no answer, no permission, or a server error.
    """
    try:
        response = client.get("/get-artifact", params={"run_uuid": run_id, "path": path})
    except httpx.HTTPError as error:
        raise _lost(client, error) from error
    if response.status_code == httpx.codes.NOT_FOUND or response.is_success:
        return response.content if response.is_success else None
    raise _refused(client, response)


def _get(client: httpx.Client, path: str, query: dict[str, str], missing: str) -> dict[str, Any]:
    try:
        response = client.get(f"{_API}/{path}", params=query)
    except httpx.HTTPError as error:
        raise _lost(client, error) from error
    try:
        content = response.json()
    except ValueError as error:
        raise _refused(client, response) from error
    if response.is_success and isinstance(content, dict) and "model_version" in content:
        return content["model_version"]
    if isinstance(content, dict) and content.get("error_code") in _ABSENT:
        raise VersionNotFound(missing)
    raise _refused(client, response)


def _download(client: httpx.Client, found: Resolved, path: str, target: Path) -> None:
    query = {"name": found.name, "version": found.version, "path": path}
    file_name = path.removeprefix(f"{BUNDLE_PATH}/")
    try:
        with client.stream("GET", "/model-versions/get-artifact", params=query) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                raise _NoSuchFile(
                    f"version {found.version} of {found.name} holds no {file_name}; its artifacts "
                    "were deleted or moved, so name another version"
                )
            if not response.is_success:
                raise _refused(client, response)
            size = 0
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    size += len(chunk)
                    if size > LARGEST_FILE_BYTES:
                        raise BrokenBundle(
                            f"{file_name} of version {found.version} of {found.name} is larger "
                            f"than {LARGEST_FILE_BYTES:,} bytes, so it is not from a bundle"
                        )
                    file.write(chunk)
    except httpx.HTTPError as error:
        raise _lost(client, error) from error
    except OSError as error:
        raise RegistryProblem(
            f"{file_name} cannot be written ({error.strerror}); make room, or name another folder "
            "by MODEL_CACHE"
        ) from error


def _fetch_signature(client: httpx.Client, found: Resolved, folder: Path) -> None:
    """The version's signature beside its files, or none if it has none now.

    It is fetched every time: a version may be signed after it was pulled, or by another key.
    """
    target = folder / signature.NAME
    draft = folder / f".{signature.NAME}.{os.getpid()}.{threading.get_ident()}"
    try:
        _download(client, found, SIGNATURE_PATH, draft)
        draft.replace(target)
    except _NoSuchFile:
        target.unlink(missing_ok=True)
    finally:
        draft.unlink(missing_ok=True)


def is_intact(folder: Path, digest: str) -> bool:
    """Whether the folder holds a bundle of this digest."""
    try:
        return bundle.digest(folder) == digest
    except BrokenBundle:
        return False


def _lost(client: httpx.Client, error: httpx.HTTPError) -> RegistryUnreachable:
    return RegistryUnreachable(
        f"no answer from the MLflow server {shown(client.base_url)} "
        f"({str(error) or type(error).__name__}); "
        "start it or correct MLFLOW_TRACKING_URI"
    )


def _refused(client: httpx.Client, response: httpx.Response) -> RegistryUnreachable:
    mend = "correct MLFLOW_TRACKING_URI"
    if response.status_code in (401, 403):
        mend = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the server's "
            "--allowed-hosts"
        )
    return RegistryUnreachable(
        f"the MLflow server {shown(client.base_url)} answered with status {response.status_code}; "
        f"{mend}"
    )
