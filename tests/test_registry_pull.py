"""registry.pull against a real `mlflow server` over the default kind of store."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd
import pytest
from mlflow import MlflowClient

from arithmetic import bundle
from arithmetic.config import load_config
from arithmetic.errors import BrokenBundle, RegistryProblem
from registry import ALIAS, BUNDLE_TAG, MODEL, inputs, pull, record, store
from registry.errors import DigestMismatch, RegistryUnreachable, VersionNotFound
from serving import watch
from tests import registry_fixtures

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running tracking server; its versions 1 (Production) and 2 are recorded from `root`."""

    uri: str
    root: Path
    digests: dict[str, str]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(store.default_uri(self.root))


@pytest.fixture(scope="module")
def server(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pull")
    root = registry_fixtures.fresh(pipeline, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        first = record.record(root)
        registry_fixtures.another_model(root)
        second = record.record(root)
    client = MlflowClient(store.default_uri(root))
    client.set_registered_model_alias(MODEL, ALIAS, first.version)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", store.default_uri(root)]
    # Elsewhere than the store, so that nothing is found by accident of the working directory.
    away = folder / "away"
    away.mkdir()
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=away, stdout=log, stderr=log, start_new_session=True
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait(uri, process, folder / "server.log")
        yield Server(uri, root, {"1": first.bundle_sha256, "2": second.bundle_sha256})
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _wait(uri: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(START_SECONDS * 5):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{uri}/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"no server after {START_SECONDS} s: {log.read_text()}")


def test_a_version_is_pulled_by_alias_and_by_number(server: Server, tmp_path: Path) -> None:
    """The server's own files come through it: those of a bundle, and nothing else."""
    by_alias = pull.pull(f"models:/{MODEL}@{ALIAS}", server.uri, tmp_path)
    assert (by_alias.name, by_alias.version) == (MODEL, "1")
    assert by_alias.bundle_sha256 == server.digests["1"] == bundle.digest(by_alias.bundle)
    by_number = pull.pull(f"models:/{MODEL}/2", server.uri + "/", tmp_path)
    assert (by_number.version, by_number.bundle_sha256) == ("2", server.digests["2"])
    there = [path for path in by_alias.bundle.rglob("*") if path.is_file()]
    names = {path.relative_to(by_alias.bundle).as_posix() for path in there}
    assert names == set(bundle.files(("+", "-")))
    assert set(tmp_path.iterdir()) == {by_alias.bundle, by_number.bundle}, "scratch was left"


def test_a_version_already_here_is_not_downloaded_and_a_damaged_one_is(
    server: Server, tmp_path: Path
) -> None:
    pulled = pull.pull(f"models:/{MODEL}/1", server.uri, tmp_path)
    before = (pulled.bundle / bundle.WEIGHTS).stat().st_mtime_ns
    assert pull.pull(f"models:/{MODEL}/1", server.uri, tmp_path) == pulled
    assert (pulled.bundle / bundle.WEIGHTS).stat().st_mtime_ns == before
    (pulled.bundle / bundle.WEIGHTS).write_bytes(b"damaged")
    assert pull.pull(f"models:/{MODEL}/1", server.uri, tmp_path) == pulled
    assert bundle.digest(pulled.bundle) == server.digests["1"]


def test_the_service_gets_the_training_questions_distribution(
    server: Server, tmp_path: Path
) -> None:
    """`record` noted it with the run; drift of what users ask is measured against it."""
    registry = watch.Server(server.uri, 10)
    pulled = registry.fetch(registry.resolve(f"models:/{MODEL}/1"), tmp_path)
    content = inputs.beside(pulled.bundle).read_bytes()
    profile = inputs.read(content, load_config(pulled.bundle).grammar)
    questions = pd.read_csv(server.root / "data" / "train.csv")
    assert profile["operation"] == questions["operation"].value_counts().to_dict()
    by_first = questions["operand_1"].astype(str).value_counts()
    assert profile["operand_1_magnitude"] == by_first.to_dict(), "operands are single digits here"


def test_a_version_promoted_by_hand_is_served_just_the_same(server: Server) -> None:
    """The alias counts, whoever set it."""
    server.client.set_registered_model_alias(MODEL, ALIAS, "2")
    assert pull.resolve(f"models:/{MODEL}@{ALIAS}", server.uri).version == "2"
    server.client.set_registered_model_alias(MODEL, ALIAS, "1")
    assert pull.resolve(f"models:/{MODEL}@{ALIAS}", server.uri).version == "1"


@pytest.mark.parametrize(
    "uri",
    [
        f"models:/{MODEL}/9",
        f"models:/{MODEL}@production",
        "models:/none/1",
        "models:/none@Production",
    ],
)
def test_what_is_not_there_is_named(server: Server, tmp_path: Path, uri: str) -> None:
    """Aliases are case-sensitive: `production` is not `Production`."""
    with pytest.raises(VersionNotFound, match="has no version"):
        pull.pull(uri, server.uri, tmp_path)


@pytest.mark.parametrize(
    "uri",
    ["", MODEL, f"models:/{MODEL}", f"models:/{MODEL}/../1", "runs:/1/x", f"models:/{MODEL}/٣"],
)
def test_a_malformed_model_uri_is_refused_with_an_example(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RegistryProblem, match="models:/arithmetic-lm@Production"):
        pull.pull(uri, "http://127.0.0.1:9", tmp_path)


def test_no_server_is_told_from_no_version(tmp_path: Path) -> None:
    """A service keeps answering through the one, and cannot start with the other."""
    with pytest.raises(RegistryUnreachable, match=r"no answer .* start it or correct"):
        pull.pull(f"models:/{MODEL}/1", "http://127.0.0.1:9", tmp_path)
    with pytest.raises(RegistryProblem, match="needs an MLflow server"):
        pull.pull(f"models:/{MODEL}/1", "sqlite:///mlflow.db", tmp_path)


def test_files_that_are_not_the_registered_ones_are_refused(server: Server, tmp_path: Path) -> None:
    """Nothing is left for a service to load by mistake."""
    model_id = str(server.client.get_model_version(MODEL, "2").source).removeprefix("models:/")
    folder = server.root / "mlartifacts/models" / model_id / "artifacts/artifacts/bundle"
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    into = tmp_path / "into"
    (folder / bundle.WEIGHTS).write_bytes(b"edited on the server")
    with pytest.raises(DigestMismatch, match="was registered with digest"):
        pull.pull(f"models:/{MODEL}/2", server.uri, into)
    (folder / bundle.WEIGHTS).unlink()
    with pytest.raises(BrokenBundle, match=r"holds no weights\.safetensors"):
        pull.pull(f"models:/{MODEL}/2", server.uri, into)
    assert list(into.iterdir()) == []
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def test_a_file_too_large_for_a_bundle_is_not_taken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong version must not fill the disk of a service."""
    monkeypatch.setattr(pull, "LARGEST_FILE_BYTES", 100)
    with pytest.raises(BrokenBundle, match="larger than 100 bytes"):
        pull.pull(f"models:/{MODEL}/1", server.uri, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_version_of_another_make_is_refused(server: Server, tmp_path: Path) -> None:
    """Without a digest there is nothing to verify."""
    own = server.client.get_model_version(MODEL, "2").tags[BUNDLE_TAG]
    server.client.delete_model_version_tag(MODEL, "2", BUNDLE_TAG)
    with pytest.raises(VersionNotFound, match="has no tag bundle_sha256"):
        pull.pull(f"models:/{MODEL}/2", server.uri, tmp_path)
    server.client.set_model_version_tag(MODEL, "2", BUNDLE_TAG, own)


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
        ({"MLFLOW_TRACKING_TOKEN": "secret"}, "Bearer secret"),
        ({}, None),
    ],
)
def test_credentials_are_sent_and_their_absence_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    header: str | None,
) -> None:
    """A server with basic auth answers 401, which is no missing version."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401, text="You are not authenticated.")

    with pytest.raises(RegistryUnreachable, match=r"status 401; set MLFLOW_TRACKING_USERNAME"):
        pull.pull(f"models:/{MODEL}/1", "http://tracking", tmp_path, httpx.MockTransport(refuse))
    assert seen[0].headers.get("authorization") == header


def test_a_password_in_the_address_is_shown_to_nobody(tmp_path: Path) -> None:
    """What is said here stands in /health, which needs no key."""
    for transport in (
        httpx.MockTransport(lambda _: httpx.Response(502, html="<h1>Bad Gateway</h1>")),
        None,
    ):
        with pytest.raises(RegistryUnreachable) as said:
            pull.pull(f"models:/{MODEL}/1", "http://me:secret@127.0.0.1:9", tmp_path, transport)
        assert "127.0.0.1" in str(said.value)
        assert "secret" not in str(said.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:80:00", "http://a..b:5000"])
def test_an_address_that_is_none_is_one_sentence(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RegistryProblem, match="which is no address"):
        pull.pull(f"models:/{MODEL}/1", uri, tmp_path)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
        ({"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE"),
        ({"MLFLOW_TRACKING_TOKEN": "gehe\u0131m"}, "holds a character that no header may hold"),
    ],
)
def test_a_connection_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RegistryProblem, match=says) as said:
        pull.pull(f"models:/{MODEL}/1", "https://127.0.0.1:9", tmp_path)
    assert "gehe" not in str(said.value)


def test_a_secret_may_end_in_a_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file of a Kubernetes secret often does; what is said of it must not repeat it."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "supersecret\n")
    seen: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(403, text="no")

    with pytest.raises(RegistryUnreachable) as said:
        pull.pull(f"models:/{MODEL}/1", "http://tracking", tmp_path, httpx.MockTransport(refuse))
    assert seen[0].headers["authorization"] == "Bearer supersecret"
    assert "supersecret" not in str(said.value)


def test_a_server_error_is_no_missing_version(tmp_path: Path) -> None:
    """A proxy's error page in front of the server is a lost server."""
    broken = httpx.MockTransport(lambda _: httpx.Response(502, html="<h1>Bad Gateway</h1>"))
    with pytest.raises(RegistryUnreachable, match="status 502"):
        pull.pull(f"models:/{MODEL}/1", "http://tracking", tmp_path, broken)


def test_pulling_loads_no_mlflow_and_no_torch() -> None:
    """Half the start time and memory of the service."""
    code = "import sys, registry.pull; print(sorted({'mlflow', 'torch', 'dvc'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
