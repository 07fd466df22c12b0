"""A file that a killed DVC left unreadable is removed, and one that reads is not."""

import json
import subprocess

import pytest

from benchmarks.small import dvc_environment
from scripts import rwlock


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(rwlock, "WRITING_SECONDS", 0.0)


def test_dvc_refuses_an_emptied_file_and_works_once_it_is_removed(workspace):
    path = workspace / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")

    def repro() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["dvc", "repro", "generate"],
            cwd=workspace,
            env=dvc_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    refused = repro()
    assert refused.returncode != 0, "this DVC mends it itself: scripts/rwlock.py can go"
    assert "rwlock" in refused.stderr
    assert rwlock.mended(workspace)
    assert not path.exists()
    assert repro().returncode == 0


def test_a_file_that_reads_stays_and_none_is_fine(tmp_path):
    assert not rwlock.mended(tmp_path)
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    content = json.dumps({"data/train.csv": {"read": [{"pid": 1, "cmd": "dvc repro"}]}})
    path.write_text(content)
    assert not rwlock.mended(tmp_path)
    assert path.read_text() == content


def test_a_file_that_is_being_written_stays(tmp_path, monkeypatch):
    """Emptied by a living DVC, it is whole again a moment later."""
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text("")
    monkeypatch.setattr(rwlock.time, "sleep", lambda seconds: path.write_text("{}"))
    assert not rwlock.mended(tmp_path)
    assert path.read_text() == "{}"
