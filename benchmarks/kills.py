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
import hashlib
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
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from arithmetic.errors import InvalidParamsError, UserError, cli_errors
from benchmarks.kill_points import POINTS, PROMOTION, REGISTER, Point
from benchmarks.results_file import ROOT, code_digest, read, write
from benchmarks.workspace import TINY, copy, environment
from registry import EXPERIMENT, MODEL_NAME, PRODUCTION
from registry.dvc_lock import read_yaml

HOOK = ROOT / "benchmarks" / "kill_hook"
STAGES = ("start", "generate", "train", "export", "evaluate", "register")
REPRO = ("dvc", "repro")
PROMOTE = ("registry.promotion", "1", "--override-gate", "operands 0-9 are not learned exactly")
LONGEST_SECONDS = 600.0  # of one command, on a busy machine
RANDOM_MOMENTS = 2  # in each stage of a round


# By kind and name: kills by `place` and by `target`, what of DVC was `repaired` by hand, commands
# that were `not reached` by their kill, or `stopped` with an error of their own.
Counts = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Reference:
    """Hold an undisturbed run: hashes, seconds of each stage, events of random points."""

    folder: Path
    files: dict[str, str]
    seconds: dict[str, float]
    events: dict[str, int]


class Round:
    """Run commands in one copy of the tree, and kill them."""

    def __init__(self, root: Path, rng: random.Random):
        self.root, self.rng = root, rng
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

    def finish(self, command: tuple[str, ...], **variables: str) -> None:
        """Run a command to its end; raise UserError if it fails."""
        process = self.start(command, **variables)
        try:
            status: object = process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = "no end"
        if status:
            log = self.log.read_text(errors="replace")[-3000:]
            raise UserError(f"`{' '.join(command)}` in {self.root} ends with {status}: {log}")

    def note_end(self, status: int, place: str) -> None:
        """Count a command that ended before its kill; raise UserError for an unexpected failure."""
        self.counts["not reached", place] += 1
        if status:
            log = self.log.read_text(errors="replace")
            errors = [line for line in log.splitlines() if line.startswith("error: ")]
            if not errors:
                raise UserError(f"a command in {self.root} fails by itself: {log[-3000:]}")
            self.counts["stopped", " ".join(errors[-1].split()[:8])] += 1

    def kill_at_point(self, point: Point, events: int) -> None:
        """Let a command run into a point."""
        target = self.rng.choice(["self", "group"])
        point = replace(point, target=target, nth=point.nth or self.rng.randint(1, events))
        command = PROMOTE if point.stage == "promotion" else REPRO
        process = self.start(command, KILL_POINT=json.dumps(asdict(point)))
        status = process.wait(LONGEST_SECONDS)
        if not self.mark.exists():
            self.note_end(status, point.name)
            return
        self.counts["place", point.name] += 1
        alone = "dvc alone" if point.module == "repro" else "the program alone"
        self.counts["target", "the process group" if target == "group" else alone] += 1

    def kill_at_random(self, stage: str, seconds: float) -> None:
        """Kill `dvc` or its process group at a random moment of a stage, or of its start."""
        process = self.start(REPRO)
        while process.poll() is None and STAGES.index(self.stage()) < STAGES.index(stage):
            time.sleep(0.02)
        try:
            self.note_end(process.wait(self.rng.uniform(0, seconds)), f"random, {stage}")
            return
        except subprocess.TimeoutExpired:
            pass
        stage = self.stage()
        if self.rng.random() < 0.5:
            process.kill()
            self.counts["target", "dvc alone"] += 1
        else:
            os.killpg(process.pid, signal.SIGKILL)
            self.counts["target", "the process group"] += 1
        process.wait()
        self.counts["place", f"random, {stage}"] += 1

    def run(self, reference: Reference, kills: int) -> None:
        """Kill at most `kills` times, in the order of the stages; finish and check."""
        plan: list[tuple[str, Point | None]] = []
        for stage in STAGES:
            plan += [(stage, point) for point in POINTS if point.stage == stage]
            plan += [(stage, None)] * RANDOM_MOMENTS
        plan += [("promotion", PROMOTION)] * 2
        chosen = sorted(self.rng.sample(range(len(plan)), min(kills, len(plan))))
        is_finished = False
        for stage, point in (plan[index] for index in chosen):
            if stage == "promotion" and not is_finished:
                self.finish(REPRO)
                is_finished = True
            if point:
                self.kill_at_point(point, reference.events.get(point.name, 1))
            else:
                self.kill_at_random(stage, reference.seconds[stage])
        self.finish(REPRO)
        self.finish(PROMOTE)
        self.check(reference)

    def check(self, reference: Reference) -> None:
        """Raise UserError at any difference from the undisturbed run."""
        files = hash_files(self.root)
        for path in sorted(files.keys() | reference.files.keys()):
            if files.get(path) != reference.files.get(path):
                raise UserError(f"{path} differs from the undisturbed run's, in {self.root}")
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
        stages = read_yaml(lock).get("stages") or {}
        parts = [p for s in stages.values() for kind in ("deps", "outs") for p in s.get(kind, [])]
        return (
            bool(stages)
            and all("cmd" in s for s in stages.values())
            and all(part.get("md5") and part.get("size") is not None for part in parts)
        )
    except (InvalidParamsError, AttributeError, TypeError):
        return False


def hash_files(root: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that the pipeline wrote, by path."""
    paths = [root / "dvc.lock"]
    for folder in ("data", "model", "metrics", "reports"):
        paths += filter(Path.is_file, (root / folder).rglob("*"))
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


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


def run_undisturbed(folder: Path) -> Reference:
    """Run the pipeline and the promotion without kills; measure stages and events."""
    folder.mkdir()
    start = copy(folder / "start", TINY)
    current = Round(folder / "copy", random.Random(0))
    shutil.copytree(start, current.root)
    events, seconds = {}, dict.fromkeys(STAGES, 0.0)
    count = folder / "count"
    counting = {"KILL_POINT": json.dumps(asdict(REGISTER)), "KILL_COUNT": str(count)}
    process, before = current.start(REPRO, **counting), time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        seconds[current.stage()] += now - before
        before = now
    if process.returncode:
        raise UserError(f"dvc repro fails without a kill: {current.log.read_text()[-3000:]}")
    events[REGISTER.name] = int(count.read_text())
    counting["KILL_POINT"] = json.dumps(asdict(PROMOTION))
    current.finish(PROMOTE, **counting)
    events[PROMOTION.name] = int(count.read_text())
    return Reference(start, hash_files(current.root), seconds, events)


def run_round(reference: Reference, seed: str, kills: int) -> Counts:
    """Run one round in a folder of its own, which stays if the round fails."""
    folder = Path(tempfile.mkdtemp(prefix="arithmetic-lm-kills-"))
    current = Round(folder / "copy", random.Random(seed))
    shutil.copytree(reference.folder, current.root)
    current.run(reference, kills)
    shutil.rmtree(folder)
    return current.counts


def count_kills(counts: Counts) -> int:
    """Return the kills so far."""
    return sum(count for (kind, _), count in counts.items() if kind == "place")


def nest(counts: Counts) -> dict[str, dict[str, int]]:
    """Return the counts by kind, then name."""
    nested: dict[str, dict[str, int]] = {}
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
    code = code_digest(
        "*.yaml",
        "benchmarks/kill*.py",
        "benchmarks/kill_hook/*.py",
        *(f"{package}/*.py" for package in ("arithmetic", "stages", "registry")),
    )
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        result = read(options.result, code)
        rounds, seconds = result.get("rounds", 0), result.get("seconds", 0.0)
        counts: Counts = Counter()
        for kind, part in result.get("counts", {}).items():
            counts.update({(kind, name): count for name, count in part.items()})
        reference = run_undisturbed(Path(scratch) / "undisturbed")
        while (kills := count_kills(counts)) < options.kills:
            started, jobs = time.monotonic(), range(rounds, rounds + options.jobs)
            left = -(-(options.kills - kills) // options.jobs)
            with ThreadPool(options.jobs) as pool:
                run = partial(run_round, reference, kills=left)
                counts = sum(pool.map(run, [f"{options.seed} {job}" for job in jobs]), counts)
            rounds, seconds = rounds + options.jobs, seconds + time.monotonic() - started
            figures: dict[str, Any] = {"kills": count_kills(counts), "rounds": rounds}
            figures |= {"lost": 0, "counts": nest(counts)}  # the first loss raises
            if options.result:
                write(options.result, {**figures, "seconds": round(seconds), "code": code})
            print(f"{figures['kills']} kills, nothing lost, {seconds:.0f} s", flush=True)
        print(json.dumps(nest(counts), indent=2))


if __name__ == "__main__":
    main()
