"""Settings: every bad value is an error that names the variable; the cache is private."""

import os
import stat
import subprocess
import sys

import pytest

from serving.auth import find_name, load_keys
from serving.settings import InvalidSettingsError, Settings, load_settings, open_model_cache


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("MODEL_URI", "models:/x", "models:/NAME@ALIAS"),
        ("MODEL_URI", "runs:/abc/model", "models:/NAME@ALIAS"),
        ("PORT", "0", "greater than"),
        ("PORT", "http", "integer"),
        ("ROOT_PATH", "api", "/api"),
        ("MAX_ERROR_RATE", "2", "less than"),
        ("LOG_FORMAT", "xml", "json"),
        ("DEADLINE_SECONDS", "nan", "less than"),
    ],
)
def test_an_unusable_value_is_named_with_its_fix(monkeypatch, name, value, hint):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingsError, match=f"{name} is '{value}'") as error:
        load_settings()
    assert hint in error.value.hint


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("API_KEYS", "")
    assert load_settings().port == 8000
    assert load_keys(load_settings()) == {}


def test_each_model_uri_has_a_private_directory_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("MODEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    uris = ("models:/a@Production", "models:/a@Candidate", "models:/a/1")
    directories = {open_model_cache(Settings(model_uri=uri)) for uri in uris}
    assert len(directories) == 3
    for directory in directories:
        assert directory.is_relative_to(tmp_path / "home" / "arithmetic-lm")
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_somebody_else_made_or_that_cannot_be_made_is_refused(tmp_path):
    directory = open_model_cache(Settings(model_cache=tmp_path))
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(InvalidSettingsError, match="not a directory of this user"):
        open_model_cache(Settings(model_cache=tmp_path))
    if os.geteuid() == 0:
        directory.unlink()
        directory.mkdir()
        os.chown(directory, 12345, 12345)
        with pytest.raises(InvalidSettingsError, match="not a directory of this user"):
            open_model_cache(Settings(model_cache=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettingsError) as error:
        open_model_cache(Settings(model_cache=tmp_path / "file"))
    assert "MODEL_CACHE" in error.value.hint


GOOD = "one=" + "0" * 64


@pytest.mark.parametrize(
    "text", ["one", "one=12", f"{GOOD},{GOOD}", f"{GOOD},", "o ne=" + "0" * 64]
)
def test_bad_api_keys_are_refused(text):
    with pytest.raises(InvalidSettingsError, match="API_KEYS"):
        load_keys(Settings(api_keys=text))


def test_the_key_command_prints_a_key_that_opens(monkeypatch):
    command = [sys.executable, "-m", "serving.auth"]
    done = subprocess.run([*command, "mine"], capture_output=True, text=True, check=True)
    key, entry = (line.rpartition(": ")[2] for line in done.stdout.splitlines())
    keys = load_keys(Settings(api_keys=entry))
    assert find_name(keys, {b"authorization": f"Bearer {key}".encode()}) == "mine"
    assert find_name(keys, {b"x-api-key": b"another"}) is None
    bad = subprocess.run([*command, "a b"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr[:6]) == (1, "error:")
