"""Kill `dvc repro` and promotions with SIGKILL, repeat them, and compare with an undisturbed run.

    make bench-kills        python -m benchmarks.kills [--kills 1000] [--seed 1] [--jobs 2]

A round starts from a copy of the tree with operands 0-9. In every stage, `dvc` alone, the stage
alone or the whole process group is killed: at named points (`kill_hook/sitecustomize.py`) and at
random moments. Then `dvc repro` and the promotion run to their end: every output must have the
bytes of an undisturbed run, and the store one finished run and one version, which is Production.

Before each command, what DVC itself leaves half-written is repaired by hand as documented, and
counted. The result is written after every round, and a later run continues from it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from mlflow import MlflowClient
from voluptuous import Invalid

from arithmetic.errors import InvalidParamsError, UserError, cli_errors
from benchmarks.kill_points import POINTS, Point
from benchmarks.results_file import ROOT, code_digest, read, write
from benchmarks.workspace import TINY, copy, environment
from registry import EXPERIMENT, MODEL_NAME, PRODUCTION
from registry.dvc_lock import md5, read_yaml

HOOK = ROOT / "benchmarks" / "kill_hook"
STAGES = ("start", "generate", "train", "export", "evaluate", "register")
REPRO = ("dvc", "repro")
PROMOTE = ("registry.promotion", "1", "--override-gate", "operands 0-9 are not learned exactly")
CODE = (
    *("*.yaml", "benchmarks/kill*.py", "benchmarks/kill_hook/*.py"),
    *("arithmetic/*.py", "stages/*.py", "registry/*.py"),
)
LONGEST_SECONDS = 600.0  # of one command, on a busy machine
RANDOM_MOMENTS, RANDOM_SECONDS = 2, 8.0  # in each stage of a round, and how late after its start

# By kind and name: kills by `place` and by `target`, what of DVC was `repaired` by hand, commands
# that were `not reached` by their kill, or `stopped` with an error of their own.
Counts = Counter[tuple[str, str]]
Hashes = dict[str, str]


class Round:
    """Run commands in one copy of the tree, and kill them."""

    def __init__(self, start: Path, root: Path, rng: random.Random):
        self.root, self.rng = Path(shutil.copytree(start, root)), rng
        self.counts: Counts = Counter()
        self.log, self.mark = root.with_name("log"), root.with_name("mark")

    def start(self, command: tuple[str, ...], **variables: str) -> "subprocess.Popen[bytes]":
        """Start `python -m COMMAND` as the leader of a process group, after the repair."""
        self.counts.update(repair(self.root))
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

    def stage(self) -> str:
        """Return the stage that the log names last."""
        lines = self.log.read_text(errors="replace").splitlines()
        started = [line.split("'")[1] for line in lines if line.startswith("Running stage '")]
        return started[-1] if started else STAGES[0]

    def finish(self, command: tuple[str, ...]) -> None:
        """Run a command to its end; raise UserError if it fails."""
        process = self.start(command)
        if process.wait(LONGEST_SECONDS):
            raise UserError(f"`{' '.join(command)}` fails in {self.root}: {self.read_log()}")

    def read_log(self) -> str:
        """Return the end of what the last command printed."""
        return self.log.read_text(errors="replace")[-3000:]

    def attempt(self, stage: str, point: Point | None) -> None:
        """Let a command run into a point, or kill it at a random moment of the stage."""
        target, place = self.rng.choice(["self", "group"]), f"random, {stage}"
        if point:
            place = point.name
            details = {**asdict(point), "nth": self.rng.choice(point.nth), "target": target}
            command = PROMOTE if stage == "promotion" else REPRO
            process = self.start(command, KILL_POINT=json.dumps(details))
            process.wait(LONGEST_SECONDS)
            is_killed = self.mark.exists()
        else:
            process = self.start(REPRO)
            while process.poll() is None and STAGES.index(self.stage()) < STAGES.index(stage):
                time.sleep(0.02)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.rng.uniform(0, RANDOM_SECONDS))
            is_killed = process.poll() is None
            if is_killed:
                place = f"random, {self.stage()}"
                kill = os.killpg if target == "group" else os.kill
                kill(process.pid, signal.SIGKILL)
                process.wait()
        if is_killed:
            alone = "the program alone" if point and point.module != "repro" else "dvc alone"
            self.counts["place", place] += 1
            self.counts["target", "the process group" if target == "group" else alone] += 1
            return
        self.counts["not reached", place] += 1
        if process.returncode:
            errors = [line for line in self.read_log().splitlines() if line.startswith("error: ")]
            if not errors:
                raise UserError(f"a command in {self.root} fails by itself: {self.read_log()}")
            self.counts["stopped", " ".join(errors[-1].split()[:8])] += 1

    def run(self, kills: int) -> None:
        """Kill at most `kills` times, in the order of the stages; finish."""
        plan: list[tuple[str, Point | None]] = []
        for stage in (*STAGES, "promotion"):
            plan += [(stage, point) for point in POINTS if point.stage == stage]
            plan += [(stage, None)] * (RANDOM_MOMENTS if stage in STAGES else 0)
        chosen = sorted(self.rng.sample(range(len(plan)), min(kills, len(plan))))
        parts = [plan[index] for index in chosen]
        for stage, point in parts:
            if stage != "promotion":
                self.attempt(stage, point)
        self.finish(REPRO)
        for stage, point in parts:
            if stage == "promotion":
                self.attempt(stage, point)
        self.finish(PROMOTE)

    def check(self, expected: Hashes) -> None:
        """Raise UserError at any difference from the undisturbed run."""
        changed = sorted({path for path, _ in hash_files(self.root).items() ^ expected.items()})
        if changed:
            raise UserError(f"{', '.join(changed)} differ in {self.root} from the undisturbed run")
        counts = count_store(self.root)
        if counts != {"finished": 1, "other": 0, "versions": 1, "production": "1"}:
            raise UserError(f"the store in {self.root} holds {counts} after the kills")


def repair(root: Path) -> Counts:
    """Remove what a killed DVC left half-written, as documented; return what it was."""
    repaired: Counts = Counter()
    rwlock, lock = root / ".dvc/tmp/rwlock", root / "dvc.lock"
    if rwlock.exists() and not rwlock.stat().st_size:
        rwlock.unlink()
        repaired["repaired", "empty rwlock"] += 1
    if lock.exists() and not is_whole(lock):
        lock.unlink()  # `git checkout dvc.lock` where it is committed
        repaired["repaired", "half-written dvc.lock"] += 1
    for entry in root.glob(".dvc/cache/runs/*/*"):
        if not any(entry.iterdir()):
            entry.rmdir()
            repaired["repaired", "empty run-cache folder"] += 1
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


def count_store(root: Path) -> dict[str, object]:
    """Count runs and versions in the store of `root`."""
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    states = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    return {
        "finished": states.count("FINISHED"),
        "other": len(states) - states.count("FINISHED"),
        "versions": len(client.search_model_versions(f"name = '{MODEL_NAME}'")),
        "production": str(client.get_model_version_by_alias(MODEL_NAME, PRODUCTION).version),
    }


def run_round(start: Path, expected: Hashes, seed: str, kills: int) -> Counts:
    """Run one round in a folder of its own, which stays if the round fails."""
    folder = Path(tempfile.mkdtemp(prefix="arithmetic-lm-kills-"))
    current = Round(start, folder / "copy", random.Random(seed))
    current.run(kills)
    current.check(expected)
    shutil.rmtree(folder)
    return current.counts


def nest(counts: Counts) -> dict[str, dict[str, int]]:
    """Return the counts by kind, then name."""
    nested: dict[str, dict[str, int]] = {"place": {}}
    for (kind, name), count in sorted(counts.items()):
        nested.setdefault(kind, {})[name] = count
    return nested


def main() -> None:
    """Run rounds until there are enough kills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="rounds at the same time")
    parser.add_argument("--result", default="kills", help="name of the result; empty for none")
    options = parser.parse_args()
    code = code_digest(*CODE)
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        result = read(options.result, code)
        rounds, seconds = result.get("rounds", 0), result.get("seconds", 0.0)
        earlier = result.get("counts", {}).items()
        counts = Counter({(kind, name): n for kind, part in earlier for name, n in part.items()})
        start = copy(Path(scratch) / "start", TINY)
        undisturbed = Round(start, Path(scratch) / "copy", random.Random(0))
        undisturbed.run(0)
        run = partial(run_round, start, hash_files(undisturbed.root))
        while (kills := sum(nest(counts)["place"].values())) < options.kills:
            started, jobs = time.monotonic(), range(rounds, rounds + options.jobs)
            left = -(-(options.kills - kills) // options.jobs)
            with ThreadPool(options.jobs) as pool:
                seeds = [(f"{options.seed} {job}", left) for job in jobs]
                counts = sum(pool.starmap(run, seeds), counts)
            rounds, seconds = rounds + options.jobs, seconds + time.monotonic() - started
            kills = sum(nest(counts)["place"].values())
            print(f"{kills} kills, nothing lost, {seconds:.0f} s", flush=True)
            if options.result:  # the first loss raises
                figures = {"kills": kills, "rounds": rounds, "lost": 0, "counts": nest(counts)}
                write(options.result, {**figures, "seconds": round(seconds), "code": code})
        print(json.dumps(nest(counts), indent=2))


if __name__ == "__main__":
    main()
