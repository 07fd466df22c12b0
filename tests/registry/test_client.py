"""Test which store is opened: addresses, moved stores, errors that say what to do."""

import functools
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

import registry.client
from arithmetic import artifacts
from registry import MODEL_NAME
from registry.client import open_client, repository_root, tracking_uri
from registry.download import download, resolve
from registry.exceptions import RegistryError, RegistryUnreachableError
from registry.record import record
from tests.registry.conftest import use_store

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ("", f"sqlite:///{REPOSITORY}/mlflow.db"),
        ("sqlite:///mlflow.db", f"sqlite:///{REPOSITORY}/mlflow.db"),
        ("https://user:secret@mlflow.example", "https://user:secret@mlflow.example"),
    ],
)
def test_default_and_relative_addresses_mean_the_repository_root(
    monkeypatch, tmp_path, address, opened
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    (tmp_path / "dvc.yaml").touch()  # another DVC project is no place for our store
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == opened
    assert registry.client.public(opened) == opened.replace("user:secret@", "")


def test_experiment_copy_uses_the_store_of_its_repository(monkeypatch, tmp_path):
    copy = tmp_path / "repository/.dvc/tmp/exps/tmp1a2b/registry/client.py"
    monkeypatch.setattr(registry.client, "__file__", str(copy))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///stores/a.db?timeout=9")
    assert repository_root() == tmp_path / "repository"
    assert tracking_uri() == f"sqlite:///{tmp_path}/repository/stores/a.db?timeout=9"


@pytest.mark.parametrize("is_copy", [False, True])
def test_moved_store_works_and_nothing_is_written_to_the_old_place(
    versions, monkeypatch, tmp_path, is_copy
):
    moved = tmp_path / "moved"
    if is_copy:
        shutil.copytree(versions.parent, moved)
    else:
        versions.parent.rename(moved)
    files = sorted(versions.rglob("*"))
    use_store(monkeypatch, moved / "store")
    assert download(resolve(f"models:/{MODEL_NAME}/1"), tmp_path / "models").is_dir()
    assert not record(moved / "project-1").is_new_run
    open_client().delete_model_version(MODEL_NAME, "2")
    assert record(moved / "project-2").version == "4"
    assert sorted(versions.rglob("*")) == files


def test_store_killed_while_it_was_made_is_made_again(monkeypatch, tmp_path):
    use_store(monkeypatch, tmp_path)
    (tmp_path / "mlflow.db.draft").write_bytes(b"half of a database")
    assert open_client().search_experiments()
    assert not (tmp_path / "mlflow.db.draft").exists()


def test_damaged_or_locked_store_is_an_error_with_a_hint(store, monkeypatch):
    database, connect = store / "mlflow.db", sqlite3.connect
    # By default it waits five seconds for a lock.
    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, timeout=0.01))
    with connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryUnreachableError, match="locked"):
            open_client()
    database.write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryUnreachableError, match=r"mlflow\.db.*not a database") as raised:
        open_client()
    assert "dvc repro" in raised.value.hint


def test_address_of_no_store_is_an_error_with_a_hint(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(RegistryError, match="gopher") as raised:
        open_client()
    assert "MLFLOW_TRACKING_URI" in raised.value.hint


@pytest.mark.parametrize("call", [lambda _: resolve(f"models:/{MODEL_NAME}/1"), record])
def test_unreachable_server_is_an_error_in_two_lines(project, monkeypatch, call):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnreachableError, match=r"no answer.*127\.0\.0\.1:9") as raised:
        call(project)
    assert "\n" not in raised.value.message
    assert "MLFLOW_TRACKING_URI" in raised.value.hint


def test_server_records_once_past_a_proxy_and_other_hosts_name_it(
    server, project, monkeypatch, tmp_path
):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.com")
    first, second = record(project), record(project)
    assert (first.is_new_version, second.is_new_run) == (True, False)
    assert first[:3] == second[:3]
    directory = download(resolve(f"models:/{MODEL_NAME}/1"), tmp_path / "models")
    assert artifacts.digest(directory) == first.model_digest
    assert os.environ["no_proxy"] == "example.com,localhost,127.0.0.1,::1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry.invalid:5000")
    with pytest.raises(RegistryUnreachableError, match=r"through the proxy http://127\.0\.0\.1:9"):
        resolve(f"models:/{MODEL_NAME}/1")


def test_users_own_settings_of_mlflow_are_kept(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    open_client()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
