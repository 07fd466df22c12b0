"""Time every stage of `dvc repro` from nothing, beside the first version's, and with nothing to do.

    make bench-pipeline        python -m benchmarks.pipeline [--tiny]
    make bench-noop            python -m benchmarks.pipeline --noop

Each version runs in a clone of its commit with its own default params, an empty DVC cache and an
empty store, in turn: on all cores, then on one. A stage is run by a `dvc repro` of its own, so its
time includes DVC's start and its imports. Writes benchmarks/results/pipeline.json.

`--noop` runs in the workspace, whose pipeline must be up to date; medians of five, in turn. The
target is at most `dvc status` and twice `import mlflow`. Writes benchmarks/results/noop.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import FIRST_VERSION, TINY, clone, merge, on_cores, run
from registry.dvc_lock import read_yaml

COMMITS = {"now": "HEAD", "first_version": FIRST_VERSION}
FIRST_STAGES = ("generate", "train", "export", "evaluate")
STAGES = {
    "now": (*FIRST_STAGES, "register"),
    "first_version": FIRST_STAGES,  # its last stage needs its own packages
}
ROUNDS = 5
COMMANDS = {
    "dvc_status": ["-m", "dvc", "status"],
    "import_mlflow": ["-c", "import mlflow"],
    "dvc_repro": ["-m", "dvc", "repro"],
}


def measure(folder: Path, version: str, cores: list[int], is_tiny: bool) -> dict[str, Any]:
    """Return the seconds of one pipeline, whole and by stage. Raise UserError if a stage fails."""
    clone(folder, COMMITS[version])
    if is_tiny:
        batches = [16] if version == "now" else [16, 16]  # a batch for each operation
        changes = {**TINY, "train": {**TINY["train"], "batch_sizes": batches}}
        params = merge(read_yaml(folder / "params.yaml"), changes)
        (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    stages = {}
    for stage in STAGES[version]:
        started = time.monotonic()
        run([*on_cores(*cores), "-m", "dvc", "repro", "--single-item", "--force", stage], folder)
        stages[stage] = round(time.monotonic() - started, 1)
    return {"seconds": round(sum(stages.values()), 1), "stages": stages}


def measure_both(is_tiny: bool) -> dict[str, Any]:
    """Measure both versions on all cores and on one."""
    allowed = sorted(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"first_version": FIRST_VERSION}
    for name, cores in (("all_cores", allowed), ("one_core", allowed[:1])):
        figures[name] = {"cores": len(cores)}
        for version in COMMITS:
            with tempfile.TemporaryDirectory() as scratch:
                row = measure(Path(scratch) / "clone", version, cores, is_tiny)
            print(f"{name}, {version}: {row}", flush=True)
            figures[name][version] = row
        now, first = (figures[name][version]["stages"]["train"] for version in COMMITS)
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
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            started = time.monotonic()
            run([sys.executable, *arguments], ROOT, **store)
            times[name].append(time.monotonic() - started)
    seconds = {name: round(median(values), 2) for name, values in times.items()}
    target = round(seconds["dvc_status"] + 2 * seconds["import_mlflow"], 2)
    print(f"dvc repro {seconds['dvc_repro']} s, target {target} s")
    return {"rounds": ROUNDS, "seconds": seconds, "target": target}


def main() -> None:
    """Measure what the options name, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline")
    parser.add_argument("--noop", action="store_true", help="a dvc repro with nothing to do")
    parser.add_argument("--tiny", action="store_true", help="operands 0-9, no result: a test")
    options = parser.parse_args()
    with cli_errors():
        figures = measure_noop() if options.noop else measure_both(options.tiny)
        if not options.tiny:
            print(f"wrote {write('noop' if options.noop else 'pipeline', figures)}")


if __name__ == "__main__":
    main()
