"""make bench-kills: `kill -9` at random moments of `dvc repro`, many times, then once in peace.

Each round starts from a fresh checkout of a small configuration (operands 0-9). `dvc repro` is
started and killed several times, at a random moment, by turns `dvc` alone (its child goes on as an
orphan) and its whole process group; then it may finish. Afterwards every hash in dvc.lock must be
that of an undisturbed run, and the store must hold one recorded run and one version.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from arithmetic.errors import Problem, reported
from benchmarks.results_file import write
from benchmarks.small import checkout, dvc_environment, store_counts

LONGEST_SECONDS = 14.0  # about as long as the small pipeline takes


@dataclass
class Tally:
    """Kills by what was at work, and what was found afterwards."""

    kills: int = 0
    alone: int = 0
    rounds: int = 0
    finished_before: int = 0
    at: Counter[str] = field(default_factory=Counter)


def start(root: Path, log: Path) -> "subprocess.Popen[bytes]":
    """`dvc repro` as the leader of a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=root,
            env=dvc_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stage_at_work(log: Path) -> str:
    """The stage that the log says was running last."""
    lines = log.read_text(errors="replace").splitlines()
    started = [line.split("'")[1] for line in lines if line.startswith("Running stage '")]
    return started[-1] if started else "start"


def killed_once(root: Path, after: float, alone: bool, tally: Tally) -> None:
    """Start, wait, `kill -9`."""
    log = root.parent / "log"
    log.unlink(missing_ok=True)
    process = start(root, log)
    try:
        process.wait(after)
        tally.finished_before += 1
        return
    except subprocess.TimeoutExpired:
        pass
    stage = stage_at_work(log)
    if alone:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    tally.kills += 1
    tally.alone += alone
    tally.at[stage] += 1


def finish(root: Path) -> None:
    """`dvc repro` to its end; raises Problem with its words if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=root,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(f"dvc repro does not recover: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def no_orphans(root: Path, seconds: float = 30.0) -> None:
    """Wait until no process works in `root` any more; raises Problem if one stays."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        at_work = []
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            try:
                at_work += [entry.parent.name] if entry.resolve() == root.resolve() else []
            except OSError:
                continue  # it ended while we looked, or is not ours
        if not at_work:
            return
        time.sleep(0.2)
    raise Problem(f"processes {', '.join(at_work)} still work in {root} after {seconds:.0f} s")


def one_round(reference: Path, kills: int, rng: random.Random, tally: Tally) -> None:
    """Kill `kills` times, finish, compare with the undisturbed `reference`."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "small"
        root.mkdir()
        checkout(root)
        for _ in range(kills):
            killed_once(root, rng.uniform(0.2, LONGEST_SECONDS), rng.random() < 0.5, tally)
        finish(root)
        no_orphans(root)
        if (root / "dvc.lock").read_bytes() != (reference / "dvc.lock").read_bytes():
            shutil.copytree(root, Path(tempfile.gettempdir()) / "arithmetic-lm-kill-failure")
            raise Problem("dvc.lock differs from the undisturbed run's")
        counts = store_counts(root)
        if counts != {"recorded": 1, "unfinished": 0, "versions": 1, "incomplete": 0}:
            raise Problem(f"the store holds {counts} after the kills")
        tally.rounds += 1


def survive(kills: int, a_round: int, seed: int) -> Tally:
    """At least `kills` kills, `a_round` in each round; raises Problem at the first loss."""
    rng, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "small"
        reference.mkdir()
        checkout(reference)
        finish(reference)
        while tally.kills < kills:
            one_round(reference, a_round, rng, tally)
            print(f"{tally.kills} kills survived, {dict(tally.at)}", flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill dvc repro at random moments.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--a-round", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", default="kills")
    given = parser.parse_args()
    with reported():
        started = time.monotonic()
        tally = survive(given.kills, given.a_round, given.seed)
        figures = {
            "kills": tally.kills,
            "of_dvc_alone": tally.alone,
            "rounds": tally.rounds,
            "lost": 0,
            "killed_in_stage": dict(sorted(tally.at.items())),
            "runs_that_ended_before_their_kill": tally.finished_before,
            "seconds": round(time.monotonic() - started),
        }
        if given.result:
            write(given.result, figures)
        print(figures)


if __name__ == "__main__":
    main()
