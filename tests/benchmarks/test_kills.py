import json
import subprocess
import sys

import pytest

from benchmarks.kills import repair
from benchmarks.results_file import ROOT


@pytest.mark.slow
def test_ten_kills_lose_nothing():
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "10", "--no-result"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost" in done.stdout
    counts = json.loads(done.stdout[done.stdout.index("{") :])
    assert sum(counts["place"].values()) == 10
    assert sum(counts.get("not reached", {}).values()) <= 3  # else it does not kill where it says


@pytest.mark.parametrize("content", ["", "schema: '2.0'\nstages:\n  train:\n", "{"])
def test_repair_removes_what_a_killed_dvc_leaves_and_nothing_else(tmp_path, content):
    entry = tmp_path / ".dvc/cache/runs/ab/abcd"
    entry.mkdir(parents=True)
    (tmp_path / ".dvc/tmp").mkdir()
    rwlock, lock = tmp_path / ".dvc/tmp/rwlock", tmp_path / "dvc.lock"
    rwlock.touch()
    lock.write_text(content)
    assert repair(tmp_path).total() == 3
    assert not rwlock.exists()
    assert not lock.exists()
    assert not entry.exists()
    rwlock.write_text("{}")
    lock.write_text((ROOT / "dvc.lock").read_text())
    assert repair(tmp_path).total() == 0
