"""Test resolving and downloading versions, and that tampered ones are refused."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from arithmetic import artifacts
from arithmetic.errors import InvalidModelError
from registry import DIGEST_TAG, MODEL_NAME, download
from registry.client import open_client
from registry.download import ModelVersionRef, resolve, verify
from registry.exceptions import PromotionRefusedError, VersionNotFoundError
from registry.promotion import promote
from registry.record import record

GRAPH = artifacts.decoder_path("add_subtract")
FIRST = f"models:/{MODEL_NAME}/1"


def test_alias_number_and_directory_resolve(versions, tmp_path):
    open_client().set_registered_model_alias(MODEL_NAME, "Production", "2")
    by_alias, by_number = resolve(f"models:/{MODEL_NAME}@Production"), resolve(f"{FIRST[:-1]}2")
    assert by_alias == by_number
    project = versions.parent / "project-2"
    assert by_alias.version == "2"
    assert by_alias.digest == artifacts.digest(project / "model")
    assert open_client().get_run(by_alias.run_id).info.status == "FINISHED"
    local = resolve(str(project / "model"))
    assert (local.version, local.digest) == ("local", by_alias.digest)
    assert download.download(local, tmp_path / "models") == project / "model"


@pytest.mark.parametrize(
    "uri",
    [f"models:/{MODEL_NAME}@Nobody", f"models:/{MODEL_NAME}/99", "models:/other/1", "models:/x",
     f"models:/{MODEL_NAME}/1/../2", "no/such/directory", "runs:/1/model"],
)  # fmt: skip
def test_what_names_no_version_is_an_error_with_a_hint(versions, uri):
    with pytest.raises(VersionNotFoundError) as raised:
        resolve(uri)
    assert raised.value.hint


def test_download_is_the_registered_model_and_is_fetched_again_if_damaged(versions, tmp_path):
    ref, models = resolve(FIRST), tmp_path / "models"
    directory = download.download(ref, models)
    present = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert present == set(artifacts.model_files(artifacts.load_config(directory)))
    (directory / artifacts.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(InvalidModelError):
        verify(directory, ref.digest)
    assert download.download(ref, models) == directory
    assert artifacts.digest(directory) == ref.digest
    assert [path.name for path in models.iterdir()] == [directory.name]
    shutil.rmtree(versions)
    assert download.download(ref, models) == directory


def stored_model(versions: Path) -> Path:
    source = open_client().get_model_version(MODEL_NAME, "1").source
    model_id = str(source).removeprefix("models:/")
    return versions / "mlartifacts" / "models" / model_id / "artifacts" / "artifacts" / "model"


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def set_source(versions: Path, source: str) -> None:
    with sqlite3.connect(versions / "mlflow.db") as database:
        columns = "source = ?, storage_location = ?"
        database.execute(f"UPDATE model_versions SET {columns} WHERE version = 1", (source, source))


def set_digest(digest: str) -> None:
    open_client().set_model_version_tag(MODEL_NAME, "1", DIGEST_TAG, digest)


TAMPERING = {
    "config": lambda v: flip_bit(stored_model(v) / artifacts.CONFIG),
    "weights": lambda v: flip_bit(stored_model(v) / artifacts.WEIGHTS),
    "graph": lambda v: flip_bit(stored_model(v) / GRAPH),
    "lost": lambda v: (stored_model(v) / artifacts.INPUT_PROFILE).unlink(),
    "source outside": lambda v: set_source(v, "/etc"),
    "source above": lambda v: set_source(v, "models:/../../etc"),
    "other digest": lambda v: set_digest("0" * 64),
    "no digest": lambda v: set_digest(""),
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_tampered_version_is_neither_downloaded_nor_promoted(versions, tmp_path, tampering):
    TAMPERING[tampering](versions)
    with pytest.raises((InvalidModelError, VersionNotFoundError)):
        download.download(resolve(FIRST), tmp_path / "models")
    assert not list((tmp_path / "models").glob("*/config.json"))
    with pytest.raises(PromotionRefusedError):
        promote("1", versions.parent / "project-1")


def test_edited_report_does_not_pass_the_gate(versions):
    for path in versions.glob("mlartifacts/*/artifacts/reports/evaluation.json"):
        report = json.loads(path.read_text())
        path.write_text(json.dumps(report | {"errors": 0}))
    with pytest.raises(PromotionRefusedError, match=r"dvc\.lock -> evaluation"):
        promote("3", versions.parent / "project-1")


def test_planted_pickle_is_never_downloaded(versions, tmp_path):
    for folder in (stored_model(versions), stored_model(versions).parents[1]):
        (folder / "python_model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/planted'\ntR.")
    download.download(resolve(FIRST), tmp_path / "models")
    assert not list((tmp_path / "models").rglob("*.pkl"))


def make_keys(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    private, public = folder / "key.pem", folder / "key.pub.pem"
    for command in (
        f"ecparam -name prime256v1 -genkey -noout -out {private}",
        f"ec -in {private} -pubout -out {public}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    return private, public


@pytest.fixture
def signed(store, project, tmp_path, monkeypatch) -> tuple[ModelVersionRef, Path]:
    """Register a signed version; returns it and the public key."""
    private, public = make_keys(tmp_path / "keys")
    monkeypatch.setenv("SIGNING_KEY", str(private))
    record(project)
    return resolve(FIRST), public


def test_signed_version_is_downloaded_with_the_trusted_key(signed, tmp_path, monkeypatch):
    ref, public = signed
    monkeypatch.setenv("TRUSTED_KEY", str(public))
    directory = download.download(ref, tmp_path / "models")
    assert verify(directory, ref.digest) == directory
    monkeypatch.setenv("TRUSTED_KEY", str(tmp_path / "lost.pem"))
    with pytest.raises(InvalidModelError, match=r"lost\.pem"):
        download.download(ref, tmp_path / "models")
    assert artifacts.digest(directory) == ref.digest


@pytest.mark.parametrize("case", ["foreign key", "no signature", "edited signature", "of another"])
def test_signature_that_does_not_hold_is_refused(signed, store, tmp_path, monkeypatch, case):
    ref, public = signed
    (signature,) = store.rglob("model.sig")
    if case == "foreign key":
        public = make_keys(tmp_path / "foreign")[1]
    elif case == "no signature":
        signature.unlink()
    elif case == "edited signature":
        flip_bit(signature)
    else:  # a valid signature by the key, over other files
        shutil.copytree(tmp_path / "project" / "model", tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text("{}")
        other = download.signing.sign(tmp_path / "model")
        shutil.copy(str(other), signature)
    monkeypatch.setenv("TRUSTED_KEY", str(public))
    with pytest.raises(InvalidModelError, match="TRUSTED_KEY"):
        download.download(ref, tmp_path / "models")
    with pytest.raises(PromotionRefusedError):
        promote("1", tmp_path / "project")
