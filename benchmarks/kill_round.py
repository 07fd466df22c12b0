"""One round of `make bench-kills`: a checkout, `kill -9` in every stage, a look afterwards."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from arithmetic.errors import Problem
from benchmarks.kill_points import HOOK, NAMED, PROMOTION, STAGES, Point, drawn
from benchmarks.small import checkout, dvc_environment, files_of, store_counts
from scripts.mend import mended

REPRO = ("dvc", "repro")
PROMOTE = ("registry.promote", "1", "--override-gate", "the small model is not exact")
LONGEST_SECONDS = 300.0  # that one command may take


@dataclass
class Tally:
    """Kills by where and whom, and runs that ended before their kill."""

    random: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    whom: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)  # by the beginning of their words
    mended: Counter[str] = field(default_factory=Counter)  # what DVC itself does not mend
    rounds: int = 0
    ended_before: int = 0

    @property
    def kills(self) -> int:
        return self.random.total() + self.named.total()

    def add(self, other: "Tally") -> None:
        for mine, new in ((self.random, other.random), (self.named, other.named)):
            mine.update(new)
        self.whom.update(other.whom)
        self.stopped.update(other.stopped)
        self.mended.update(other.mended)
        self.rounds += other.rounds
        self.ended_before += other.ended_before


@dataclass(frozen=True)
class Undisturbed:
    """A run in peace: its files, seconds of each stage, audit events of recording and promoting."""

    files: dict[str, str]
    seconds: dict[str, float]
    events: dict[str, int]


def start(root: Path, command: tuple[str, ...], **more: str) -> "subprocess.Popen[bytes]":
    """`python -m COMMAND` as the leader of a process group of its own; its words go to the log."""
    environment = {**dvc_environment(), **more}
    environment["PYTHONPATH"] = str(HOOK)
    log = root.parent / "log"
    log.unlink(missing_ok=True)  # an orphan goes on writing to the one that it has
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def log_of(root: Path) -> str:
    return (root.parent / "log").read_text(errors="replace")


def stage_at_work(root: Path) -> str:
    """The stage that the log says was running last."""
    lines = log_of(root).splitlines()
    started = [line.split("'")[1] for line in lines if line.startswith("Running stage '")]
    return started[-1] if started else "start"


def finish(root: Path, command: tuple[str, ...], **more: str) -> None:
    """A command to its end; raises Problem with its words if it fails."""
    process = start(root, command, **more)
    try:
        status: int | str = process.wait(LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        status = "no end"
    if status:
        raise Problem(f"`{' '.join(command)}` does not recover ({status}): {log_of(root)[-3000:]}")


def undisturbed(folder: Path) -> Undisturbed:
    """Run once in peace, and measure where to strike."""
    root = checkout(folder / "small")
    seconds = dict.fromkeys(STAGES, 0.0)
    process, before = start(root, REPRO), time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        seconds[stage_at_work(root)] += now - before
        before = now
    if process.returncode:
        raise Problem(f"dvc repro fails without any kill: {log_of(root)[-3000:]}")
    files = files_of(root)
    # Once more from nothing, counting.
    for path in (root / "mlflow.db", root / "mlartifacts"):
        path.rename(folder / path.name)
    events = {}
    for command, point in ((("registry.record",), NAMED["record"][0]), (PROMOTE, PROMOTION)):
        count = folder / "count"
        finish(root, command, KILL_COUNT=str(count), **point.variables())
        events[point.module] = int(count.read_text())
    return Undisturbed(files, seconds, events)


class Round:
    """One checkout and what happens to it."""

    def __init__(self, root: Path, reference: Undisturbed, rng: random.Random):
        self.root, self.reference, self.rng = root, reference, rng
        self.tally = Tally()

    def mend(self) -> None:
        """What `make run` and `make mend` do before DVC reads what it was writing when killed."""
        for sentence in mended(self.root):
            kind = next((one for one in ("rwlock", "dvc.lock") if one in sentence), "run cache")
            self.tally.mended[kind] += 1

    def at_random(self, stage: str) -> None:
        """Kill `dvc repro` at a random moment of a stage, or of its own start."""
        self.mend()
        process = start(self.root, REPRO)
        while process.poll() is None and STAGES.index(stage_at_work(self.root)) < STAGES.index(
            stage
        ):
            time.sleep(0.02)
        try:
            status = process.wait(self.rng.uniform(0.0, self.reference.seconds[stage]))
            self.ended(status)
            return
        except subprocess.TimeoutExpired:
            pass
        stage = stage_at_work(self.root)
        if self.rng.random() < 0.5:
            process.kill()
            self.tally.whom["dvc alone"] += 1
        else:
            os.killpg(process.pid, signal.SIGKILL)
            self.tally.whom["the process group"] += 1
        process.wait()
        self.tally.random[stage] += 1

    def ended(self, status: int) -> None:
        """Note a command that nobody killed: it was through, or stopped with a word of its own, as
        one does that meets an orphan's training."""
        self.tally.ended_before += 1
        if status:
            words = [line for line in log_of(self.root).splitlines() if line.startswith("error: ")]
            if not words:
                raise Problem(f"a command fails by itself: {log_of(self.root)[-3000:]}")
            self.tally.stopped[" ".join(words[-1].split()[:8])] += 1

    def at(self, point: Point, command: tuple[str, ...]) -> None:
        """Let a command run into a named point."""
        point = drawn(point, self.reference.events.get(point.module, 1), self.rng)
        self.mend()
        mark = self.root.parent / "struck"
        mark.unlink(missing_ok=True)
        process = start(self.root, command, KILL_MARK=str(mark), **point.variables())
        status = process.wait(LONGEST_SECONDS)
        if not mark.exists():
            self.ended(status)
            return
        self.tally.named[point.name] += 1
        alone = "dvc alone" if point.module == "repro" else "the stage alone"
        self.tally.whom["the process group" if point.group else alone] += 1

    def walk(self, a_stage: int) -> None:
        """Kill in every stage, at each named point once and `a_stage` times at random."""
        for stage in STAGES:
            # Named ones first: a stage whose random moment comes too late has ended.
            for point in NAMED.get(stage, ()):
                self.at(point, REPRO)
            for _ in range(a_stage):
                self.at_random(stage)
        self.mend()
        finish(self.root, REPRO)
        no_process_in(self.root)
        for _ in range(2):
            self.at(PROMOTION, PROMOTE)
        finish(self.root, PROMOTE)

    def check(self) -> None:
        """Raises Problem, naming it, at any difference from an undisturbed run."""
        found = files_of(self.root)
        for path in sorted(found.keys() | self.reference.files.keys()):
            if found.get(path) != self.reference.files.get(path):
                raise Problem(f"{path} differs from the undisturbed run's, in {self.root}")
        counts = store_counts(self.root)
        wanted = {"recorded": 1, "unfinished": 0, "versions": 1, "incomplete": 0, "production": 1}
        if counts != wanted:
            raise Problem(f"the store in {self.root} holds {counts} after the kills")
        self.tally.rounds = 1


def no_process_in(root: Path, seconds: float = 60.0) -> None:
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


def one_round(reference: Undisturbed, a_stage: int, seed: str) -> Tally:
    """A checkout, its kills, its check; the folder of one that fails is kept."""
    folder = Path(tempfile.mkdtemp(prefix="arithmetic-lm-kills-"))
    current = Round(checkout(folder / "small"), reference, random.Random(seed))
    current.walk(a_stage)
    current.check()
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    return current.tally
