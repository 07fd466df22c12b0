"""What a killed DVC left unusable is removed, and what reads is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.small import dvc_environment, git
from scripts import mend


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(mend, "WRITING_SECONDS", 0.0)


def repro(workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", "repro", "generate", *options],
        cwd=workspace,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_dvc_refuses_an_emptied_rwlock_and_works_once_it_is_removed(workspace):
    path = workspace / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    refused = repro(workspace)
    assert refused.returncode != 0, "this DVC mends it itself: scripts/mend.py can forget it"
    assert "rwlock" in refused.stderr
    (said,) = mend.mended(workspace)
    assert said == "removed .dvc/tmp/rwlock, which a killed DVC had left empty or half written"
    assert not path.exists()
    assert repro(workspace).returncode == 0


def test_dvc_fails_on_an_empty_entry_of_its_run_cache_and_works_once_it_is_removed(workspace):
    entries = workspace.glob(".dvc/cache/runs/*/*/*")
    (path,) = [path for path in entries if "stages.generate" in path.read_text()]
    entry = path.parent
    path.unlink()
    (workspace / "dvc.lock").unlink()  # so that DVC looks into its run cache
    refused = repro(workspace)
    assert refused.returncode != 0, "this DVC mends it itself: scripts/mend.py can forget it"
    assert "NoneType" in refused.stderr
    (said,) = mend.mended(workspace)
    assert str(entry.relative_to(workspace)) in said
    assert repro(workspace).returncode == 0
    assert mend.mended(workspace) == []


@pytest.mark.parametrize("up_to", [b"", b"\n  generate:"])
@pytest.mark.parametrize("committed", [False, True])
def test_dvc_refuses_half_a_lock_and_works_once_it_is_mended(workspace, up_to, committed):
    """Git's is put back, where git has one; the broken one is kept aside."""
    lock = workspace / "dvc.lock"
    whole = lock.read_bytes()
    if committed:
        git(workspace, "add", "--force", "dvc.lock")
        git(workspace, "commit", "--quiet", "-m", "locked")
    cut = whole[: whole.index(up_to) + len(up_to)]
    lock.write_bytes(cut)
    refused = repro(workspace)
    assert refused.returncode != 0, "this DVC mends it itself: scripts/mend.py can forget it"
    assert "dvc.lock" in refused.stderr
    (said,) = mend.mended(workspace)
    assert ("git's is back" in said) == committed
    assert (workspace / mend.ASIDE).read_bytes() == cut
    assert repro(workspace).returncode == 0
    if committed:
        assert lock.read_bytes() == whole


def test_a_lock_with_a_conflict_is_for_a_person_to_mend(tmp_path):
    lock = tmp_path / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages:\n<<<<<<< HEAD\n=======\n>>>>>>> other\n")
    assert mend.mended(tmp_path) == []
    assert lock.exists()


def test_what_reads_stays_and_none_is_fine(tmp_path):
    assert mend.mended(tmp_path) == []
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    content = json.dumps({"data/train.csv": {"read": [{"pid": 1, "cmd": "dvc repro"}]}})
    path.write_text(content)
    entry = tmp_path / ".dvc" / "cache" / "runs" / "ab" / "abc" / "def"
    entry.parent.mkdir(parents=True)
    entry.write_text("cmd: python -m stages.generate\n")
    assert mend.mended(tmp_path) == []
    assert path.read_text() == content
    assert entry.exists()


def test_what_is_being_written_stays(tmp_path, monkeypatch):
    """Emptied by a living DVC, it is whole again a moment later."""
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text("")
    monkeypatch.setattr(mend.time, "sleep", lambda seconds: path.write_text("{}"))
    assert mend.mended(tmp_path) == []
    assert path.read_text() == "{}"


def test_the_command_says_what_it_removed(tmp_path):
    entry = tmp_path / ".dvc" / "cache" / "runs" / "ab" / "abc"
    entry.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.mend", str(tmp_path)],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    name = entry.relative_to(tmp_path)
    says = f"removed {name}, which a killed DVC had left empty or half written"
    assert done.stdout.strip() == f"mend: {says} (in {tmp_path})"
