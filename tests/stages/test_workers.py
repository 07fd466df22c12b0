"""Two workers compute what one does, and none outlives the other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
import torch

from stages.workers import Workers, run_workers
from tests.small_project import ROOT

# Each worker prints its rank and process, then sums for ever or raises the error in argv.
SCRIPT = """
import os, sys, time
import joblib, torch
from arithmetic.errors import UserError, cli_errors
from stages.workers import run_workers

def work(job, workers):
    os.write(1, f"{workers.rank} {os.getpid()}\\n".encode())  # a line in one piece
    while True:
        if job:
            raise UserError(job)
        workers.sum_over_shards(lambda shard: torch.ones(1))
        time.sleep(0.01)

if __name__ == "__main__":
    joblib.cpu_count = lambda: 2
    with cli_errors():
        run_workers(work, "".join(sys.argv[1:]))
"""


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command, pipe = [sys.executable, str(script), *arguments], subprocess.PIPE
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start two workers; return the first one and the second one's process id."""
    process = start(tmp_path)
    assert process.stdout is not None
    ranks = dict(process.stdout.readline().split() for _ in range(2))
    assert set(ranks) == {"0", "1"}
    yield process, int(ranks["1"])
    process.kill()
    process.communicate()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_one_core_runs_one_worker_in_this_process_which_sums_both_shards(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    job, workers, pid = run_workers(lambda job, workers: (job, workers, os.getpid()), 7)
    assert (job, workers, pid) == (7, Workers(0, 1), os.getpid())
    total = workers.sum_over_shards(lambda shard: torch.tensor([1.0 + shard]))
    assert total.tolist() == [3.0]


def test_killed_second_worker_is_reported_with_a_hint(running):
    process, second = running
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == (
        "error: a training process was ended from outside, perhaps for lack of memory\n"
        "hint: run `dvc repro` to resume from the last validation\n"
    )


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killed_first_worker_leaves_no_orphan(running, kill):
    process, second = running
    process.send_signal(kill)
    process.wait(60)
    assert wait_until_gone(second)


def test_ctrl_c_ends_both_workers(running):
    process, second = running
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert wait_until_gone(second)


def test_error_of_both_workers_is_shown_once(tmp_path):
    process = start(tmp_path, "the training diverged")
    output, errors = process.communicate()
    assert sorted(line.split()[0] for line in output.splitlines()) == ["0", "1"]
    assert (process.returncode, errors) == (1, "error: the training diverged\n")
