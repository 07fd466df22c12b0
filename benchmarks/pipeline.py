"""make bench-pipeline: seconds of `dvc repro --force` from nothing, whole and by stage.

Runs in a temporary clone of the last commit, with an empty cache and an empty MLflow store, and
says whether dvc.lock came out unchanged.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arithmetic.errors import Problem, reported
from benchmarks.results_file import write

ROOT = Path(__file__).resolve().parents[1]


def measure(clone: Path, project: str) -> dict[str, object]:
    """Clone the last commit to `clone`, run the pipeline of a folder there, return the figures."""
    subprocess.run(["git", "clone", "-q", "--local", str(ROOT), str(clone)], check=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment["PYTHONPATH"] = str(clone)
    folder = clone / project
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--force"], cwd=folder, env=environment, check=False
    )
    if done.returncode:
        raise Problem("dvc repro failed in the clone; its own words are above")
    seconds = round(time.monotonic() - started, 1)
    times = json.loads((folder / ".times.json").read_text())
    unchanged = subprocess.run(
        ["git", "diff", "--exit-code", "--stat"], cwd=folder, check=False
    ).returncode
    return {
        "seconds": seconds,
        "stages": {stage: entry["seconds"] for stage, entry in times.items()},
        "lock_and_outputs_unchanged": unchanged == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the pipeline from nothing.")
    parser.add_argument("--project", default=".", help="a folder with a dvc.yaml")
    parser.add_argument("--result", default="pipeline")
    given = parser.parse_args()
    with reported(), tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch) / "clone", given.project)
        path = write(given.result, figures)
        print(json.dumps(figures, indent=2))
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
