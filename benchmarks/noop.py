"""Measure a `dvc repro` with nothing to do, beside `dvc status` and `import mlflow`.

    make bench-noop

Runs in the workspace, whose pipeline must be up to date; medians of five, in turn. The target is at
most `dvc status` and twice `import mlflow`. Writes benchmarks/results/noop.json.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import write

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
STAGES = ("generate", "train", "export", "evaluate")  # register always runs
COMMANDS = {
    "dvc_status": ["-m", "dvc", "status"],
    "import_mlflow": ["-c", "import mlflow"],
    "dvc_repro": ["-m", "dvc", "repro"],
}


def run(arguments: list[str]) -> tuple[float, str]:
    """Run this environment's Python; return its wall-clock time and its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    elapsed = time.monotonic() - started
    if done.returncode:
        raise UserError(f"{' '.join(arguments)} failed: {done.stderr}", "run `dvc repro` first")
    return elapsed, done.stdout


def measure() -> dict[str, float]:
    """Return the median seconds of each command."""
    # Once before: caches are warm, and anything left to do shows.
    output = run(COMMANDS["dvc_repro"])[1]
    if any(f"Running stage '{stage}'" in output for stage in STAGES):
        raise UserError("the pipeline was not up to date", "run this again")
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(run(arguments)[0])
    return {name: round(median(values), 2) for name, values in times.items()}


def main() -> None:
    """Measure and write the result."""
    with cli_errors():
        seconds = measure()
        target = round(seconds["dvc_status"] + 2 * seconds["import_mlflow"], 2)
        path = write("noop", {"rounds": ROUNDS, "seconds": seconds, "target": target})
        print(f"dvc repro {seconds['dvc_repro']} s, target {target} s: {path}")


if __name__ == "__main__":
    main()
