"""Kill `dvc repro` and promotions with SIGKILL, repeat them, and compare with an undisturbed run.

    make bench-kills        python -m benchmarks.kills [--kills 1000] [--seed 1] [--jobs 2]

A round starts from a copy of the tree with operands 0-9. In every stage, `dvc` alone, the stage
alone or the whole process group is killed: at named points (`kill_hook/sitecustomize.py`) and at
random moments. Then `dvc repro` and the promotion run to their end: every output must have the
bytes of an undisturbed run, and the store one finished run and one version, which is Production.

Before each command, what DVC itself leaves half-written is repaired by hand as documented, and
counted. The result is written after every round, and a later run on this commit continues from it.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from mlflow import MlflowClient
from voluptuous import Invalid

from arithmetic.errors import InvalidParamsError, UserError, cli_errors
from benchmarks.results_file import ROOT, commit, read, write
from benchmarks.workspace import TINY, copy, environment
from registry import EXPERIMENT, MODEL_NAME, PRODUCTION
from registry.dvc_lock import md5, read_yaml

HOOK = ROOT / "benchmarks" / "kill_hook"
REPRO = ("dvc", "repro")
PROMOTE = ("registry.promotion", "1", "--override-gate", "operands 0-9 are not learned exactly")
LONGEST_SECONDS = 600.0  # of one command, on a busy machine
RANDOM_SECONDS = 4.0  # how late at most after a stage's start a random moment is


class Point(NamedTuple):
    """Describe where a process is killed.

    Attributes:
        stage: during which it is to happen.
        module: of `python -m`; `repro` is DVC itself; empty for a random moment.
        event: of the hook, a regular expression.
        after: events count from this one on.
        nth: which of the events, at random.
        effect: `half` or `empty`: what the kill leaves of the file that is being written.
    """

    name: str
    stage: str
    module: str = ""
    event: str = ""
    after: str = ""
    nth: range = range(1, 2)
    effect: str = ""


STAGES = ("start", "generate", "train", "export", "evaluate", "register")
LOCK = r"^open .*dvc\.lock$"
CHECKPOINT = r"^os\.rename \.checkpoints/"
STORE_OPENED = r"^sqlite3\.connect$"
ANY = ""  # thousands of events between two statements, in all about as many as here
REGISTER = Point("in register", "register", "stages.register", ANY, STORE_OPENED, range(1, 10_000))
PROMOTION = Point(
    "in promotion", "promotion", "registry.promotion", ANY, STORE_OPENED, range(1, 25_000)
)
NAMED = (
    Point("between two splits", "generate", "stages.generate", r"^open data/test\.csv$"),
    Point("run-cache entry opened", "generate", "repro", r"^open .*\.dvc/cache/runs/"),
    Point("before dvc.lock is written", "generate", "repro", LOCK),
    Point("rwlock emptied", "generate", "repro", r"^open .*\.dvc/tmp/rwlock$", effect="empty"),
    Point("checkpoint half-written", "train", "stages.train", CHECKPOINT, effect="half"),
    Point("before a checkpoint is replaced", "train", "stages.train", CHECKPOINT, nth=range(3, 4)),
    Point("weights without history", "train", "stages.train", r"^open metrics/history\.csv$"),
    Point("dvc.lock half-written", "train", "repro", LOCK, effect="half"),
    Point("decoder opened", "export", "stages.export", r"^open model/decoders/"),
    Point("dvc.lock emptied", "export", "repro", LOCK, effect="empty"),
    Point("metrics without report", "evaluate", "stages.evaluate", r"^open reports/"),
    *(REGISTER, REGISTER, PROMOTION, PROMOTION),
)
RANDOM = [Point(f"random, {stage}", stage) for stage in STAGES for _ in range(2)]
ORDER = (*STAGES, "promotion")
POINTS = sorted([*NAMED, *RANDOM], key=lambda point: ORDER.index(point.stage))

# Kills by `place` and by `target`, what of DVC was `repaired` by hand, commands that were
# `not reached` by their kill, or `stopped` with an error of their own.
Counts = defaultdict[str, Counter[str]]
Hashes = dict[str, str]


class Round:
    """Run commands in one copy of the tree, and kill them."""

    def __init__(self, start: Path, root: Path, rng: random.Random):
        self.root, self.rng = Path(shutil.copytree(start, root)), rng
        self.counts: Counts = defaultdict(Counter)
        self.log, self.mark = root.with_name("log"), root.with_name("mark")

    def start(self, command: tuple[str, ...], **variables: str) -> "subprocess.Popen[bytes]":
        """Start `python -m COMMAND` as the leader of a process group, after the repair."""
        self.counts["repaired"] += repair(self.root)
        self.log.unlink(missing_ok=True)  # an orphan keeps writing to the one it has
        self.mark.unlink(missing_ok=True)
        with self.log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.root,
                env=environment(PYTHONPATH=str(HOOK), KILL_MARK=str(self.mark), **variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def read_log(self) -> str:
        """Return what the last command printed."""
        return self.log.read_text(errors="replace")

    def stage(self) -> str:
        """Return the stage that the log names last."""
        return [STAGES[0], *re.findall(r"^Running stage '(\w+)'", self.read_log(), re.M)][-1]

    def is_in(self, stages: tuple[str, ...], process: "subprocess.Popen[bytes]") -> bool:
        """Return whether the process runs and is in one of the stages."""
        return process.poll() is None and self.stage() in stages

    def finish(self, command: tuple[str, ...]) -> None:
        """Run a command to its end; raise UserError if it fails."""
        if self.start(command).wait(LONGEST_SECONDS):
            raise UserError(f"`{' '.join(command)}` fails in {self.root}: {self.read_log()}")

    def attempt(self, point: Point) -> None:
        """Let a command run into a point, or kill it at a random moment of a stage."""
        target, place = self.rng.choice(["self", "group"]), point.name
        if point.module:
            details = {**point._asdict(), "nth": self.rng.choice(point.nth), "target": target}
            command = PROMOTE if point.stage == "promotion" else REPRO
            process = self.start(command, KILL_POINT=json.dumps(details))
            process.wait(LONGEST_SECONDS)
            is_killed = self.mark.exists()
        else:
            process = self.start(REPRO)
            while self.is_in(STAGES[: STAGES.index(point.stage)], process):
                time.sleep(0.02)
            # At the latest when the stage is over: later stages have points of their own.
            moment = time.monotonic() + self.rng.uniform(0, RANDOM_SECONDS)
            while self.is_in((point.stage,), process) and time.monotonic() < moment:
                time.sleep(0.02)
            is_killed = process.poll() is None
            if is_killed:
                place = f"random, {self.stage()}"
                kill = os.killpg if target == "group" else os.kill
                kill(process.pid, signal.SIGKILL)
                process.wait()
        if is_killed:
            alone = "dvc alone" if point.module in ("", "repro") else "the program alone"
            self.counts["place"][place] += 1
            self.counts["target"]["the process group" if target == "group" else alone] += 1
            return
        self.counts["not reached"][place] += 1
        if process.returncode:
            errors = re.findall(r"^error: .*", self.read_log(), re.M)
            if not errors:
                raise UserError(f"a command in {self.root} fails by itself: {self.read_log()}")
            self.counts["stopped"][" ".join(errors[-1].split()[:8])] += 1

    def run(self, kills: int) -> None:
        """Kill at most `kills` times, in the order of the stages; finish."""
        chosen = sorted(self.rng.sample(range(len(POINTS)), min(kills, len(POINTS))))
        points = [POINTS[index] for index in chosen]
        for point in points:
            if point.stage != "promotion":
                self.attempt(point)
        self.finish(REPRO)
        for point in points:
            if point.stage == "promotion":
                self.attempt(point)
        self.finish(PROMOTE)

    def check(self, expected: Hashes) -> None:
        """Raise UserError at any difference from the undisturbed run."""
        changed = sorted({path for path, _ in hash_files(self.root).items() ^ expected.items()})
        if changed:
            raise UserError(f"{', '.join(changed)} differ in {self.root} from the undisturbed run")
        store = list_store(self.root)
        if store != (["FINISHED"], ["1"], "1"):
            raise UserError(f"the store in {self.root} holds {store} after the kills")


def repair(root: Path) -> Counter[str]:
    """Remove what a killed DVC left half-written, as documented; return what it was."""
    repaired: Counter[str] = Counter()
    rwlock, lock = root / ".dvc/tmp/rwlock", root / "dvc.lock"
    if rwlock.exists() and not rwlock.stat().st_size:
        rwlock.unlink()
        repaired["empty rwlock"] += 1
    if lock.exists() and not is_whole(lock):
        lock.unlink()  # `git checkout dvc.lock` where it is committed
        repaired["half-written dvc.lock"] += 1
    for entry in root.glob(".dvc/cache/runs/*/*"):
        if not any(entry.iterdir()):
            entry.rmdir()
            repaired["empty run-cache folder"] += 1
    return repaired


def is_whole(lock: Path) -> bool:
    """Return whether DVC accepts a dvc.lock."""
    try:
        COMPILED_LOCKFILE_SCHEMA(read_yaml(lock))
    except (InvalidParamsError, Invalid):
        return False
    return True


def hash_files(root: Path) -> Hashes:
    """Return the MD5 of everything that the pipeline wrote, by path."""
    paths = [root / "dvc.lock"]
    for folder in ("data", "model", "metrics", "reports"):
        paths += filter(Path.is_file, (root / folder).rglob("*"))
    return {path.relative_to(root).as_posix(): md5(path) for path in paths}


def list_store(root: Path) -> tuple[list[str], list[str], str]:
    """Return states of the runs, the versions, and Production in the store of `root`."""
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    return (
        [run.info.status for run in client.search_runs([experiment.experiment_id])],
        [str(v.version) for v in client.search_model_versions(f"name = '{MODEL_NAME}'")],
        str(client.get_model_version_by_alias(MODEL_NAME, PRODUCTION).version),
    )


def run_round(start: Path, expected: Hashes, seed: str, kills: int) -> Counts:
    """Run one round in a folder of its own, which stays if the round fails."""
    folder = Path(tempfile.mkdtemp(prefix="arithmetic-lm-kills-"))
    current = Round(start, folder / "copy", random.Random(seed))
    current.run(kills)
    current.check(expected)
    shutil.rmtree(folder)
    return current.counts


def main() -> None:
    """Run rounds until there are enough kills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="rounds at the same time")
    parser.add_argument("--no-result", action="store_true", help="write nothing: a test")
    options = parser.parse_args()
    code = commit()
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        result = {} if options.no_result else read("kills", code)
        rounds, seconds = result.get("rounds", 0), result.get("seconds", 0.0)
        counts: Counts = defaultdict(Counter)
        counts |= {kind: Counter(part) for kind, part in result.get("counts", {}).items()}
        start = copy(Path(scratch) / "start", TINY)
        undisturbed = Round(start, Path(scratch) / "copy", random.Random(0))
        undisturbed.run(0)
        run = partial(run_round, start, hash_files(undisturbed.root))
        while (kills := counts["place"].total()) < options.kills:
            started, jobs = time.monotonic(), range(rounds, rounds + options.jobs)
            left = -(-(options.kills - kills) // options.jobs)
            with ThreadPool(options.jobs) as pool:
                for part in pool.starmap(run, [(f"{options.seed} {job}", left) for job in jobs]):
                    for kind, counter in part.items():
                        counts[kind] += counter
            rounds, seconds = rounds + options.jobs, seconds + time.monotonic() - started
            figures = {"kills": counts["place"].total(), "rounds": rounds, "lost": 0}
            print(f"{figures['kills']} kills, nothing lost, {seconds:.0f} s", flush=True)
            if not options.no_result:  # the first loss raises
                figures |= {"counts": counts, "seconds": round(seconds), "code": code}
                write("kills", figures)
        print(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
