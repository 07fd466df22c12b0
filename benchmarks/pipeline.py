"""Time every stage of `dvc repro` from nothing, beside the first version's, and with nothing to do.

    make bench-pipeline        python -m benchmarks.pipeline
    make bench-noop            python -m benchmarks.pipeline --noop

Each version runs in a clone of its commit with its own default params, an empty DVC cache and an
empty store, in turn: on all cores, then on one. A stage is run by a `dvc repro` of its own, so its
time includes DVC's start and its imports. Writes benchmarks/results/pipeline.json.

`--noop` runs in the workspace, whose pipeline must be up to date; medians of five, in turn. The
target is at most `dvc status` and twice `import mlflow`. Writes benchmarks/results/noop.json.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import FIRST_VERSION, clone, run, time_run

FIRST_STAGES = ("generate", "train", "export", "evaluate")
VERSIONS = {
    "now": ("HEAD", (*FIRST_STAGES, "register")),
    "first_version": (FIRST_VERSION, FIRST_STAGES),  # its last stage needs its own packages
}
ROUNDS = 5
COMMANDS = {
    "dvc_status": ["-m", "dvc", "status"],
    "import_mlflow": ["-c", "import mlflow"],
    "dvc_repro": ["-m", "dvc", "repro"],
}


def measure(folder: Path, commit: str, stages: tuple[str, ...], cores: list[int]) -> dict[str, Any]:
    """Return the seconds of one pipeline, whole and by stage. Raise UserError if a stage fails."""
    clone(folder, commit)
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable]
    command += ["-m", "dvc", "repro", "--single-item", "--force"]
    seconds = {stage: round(time_run([*command, stage], folder), 1) for stage in stages}
    return {"seconds": round(sum(seconds.values()), 1), "stages": seconds}


def measure_both() -> dict[str, Any]:
    """Measure both versions on all cores and on one."""
    allowed = sorted(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"first_version": FIRST_VERSION}
    for name, cores in (("all_cores", allowed), ("one_core", allowed[:1])):
        figures[name] = {"cores": len(cores)}
        for version, (commit, stages) in VERSIONS.items():
            with tempfile.TemporaryDirectory() as scratch:
                row = measure(Path(scratch) / "clone", commit, stages, cores)
            print(f"{name}, {version}: {row}", flush=True)
            figures[name][version] = row
        now, first = (figures[name][version]["stages"]["train"] for version in VERSIONS)
        figures[name]["training_ratio"] = round(now / first, 2)
        print(f"{name}: training takes {now / first:.2f} times the first version's, target 1.5")
    return figures


def measure_noop() -> dict[str, Any]:
    """Return the median seconds of each command, and the target."""
    store = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    # Once before: caches are warm, and anything left to do shows (register always runs).
    output = run([sys.executable, *COMMANDS["dvc_repro"]], ROOT, **store)
    if "Running stage" in output.replace("Running stage 'register'", ""):
        raise UserError("the pipeline was not up to date", "run this again")

    def measure_command(arguments: list[str]) -> float:
        return time_run([sys.executable, *arguments], ROOT, **store)

    times = [{name: measure_command(COMMANDS[name]) for name in COMMANDS} for _ in range(ROUNDS)]
    seconds = pd.DataFrame(times).median().round(2).to_dict()
    target = round(seconds["dvc_status"] + 2 * seconds["import_mlflow"], 2)
    print(f"dvc repro {seconds['dvc_repro']} s, target {target} s")
    return {"rounds": ROUNDS, "seconds": seconds, "target": target}


def main() -> None:
    """Measure what the options name, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline")
    parser.add_argument("--noop", action="store_true", help="a dvc repro with nothing to do")
    options = parser.parse_args()
    with cli_errors():
        figures = measure_noop() if options.noop else measure_both()
        print(f"wrote {write('noop' if options.noop else 'pipeline', figures)}")


if __name__ == "__main__":
    main()
