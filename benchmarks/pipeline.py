"""Time every stage of `dvc repro` from nothing, beside the first version's pipeline.

    make bench-pipeline        python -m benchmarks.pipeline [--tiny]

Each version runs in a clone of its commit with its own default params, an empty DVC cache and an
empty store, in turn: on all cores, then on one. A stage's time is that between DVC's lines
`Running stage …`, so it includes its imports. Writes benchmarks/results/pipeline.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import write
from benchmarks.workspace import TINY, clone, environment, merge
from registry.dvc_lock import read_yaml

FIRST_VERSION = "a4cc569"
COMMITS = {"now": "HEAD", "first_version": FIRST_VERSION}
TARGETS = {"now": [], "first_version": ["evaluate"]}  # its last stage needs its own packages
LARGEST_TRAINING_RATIO = 1.5  # the target


def measure(folder: Path, version: str, cores: list[int], is_tiny: bool) -> dict[str, Any]:
    """Return the seconds of one pipeline, whole and by stage.

    Raises:
        UserError: a stage failed.
    """
    clone(folder, COMMITS[version])
    if is_tiny:
        batches = [16] if version == "now" else [16, 16]  # a batch for each operation
        changes = {**TINY, "train": {**TINY["train"], "batch_sizes": batches}}
        params = merge(read_yaml(folder / "params.yaml"), changes)
        (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "dvc", "repro"]
    process = subprocess.Popen(
        [*command, "--force", *TARGETS[version]],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    started = time.monotonic()
    marks, lines = [("start", started)], []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Running stage '"):
            marks.append((line.split("'")[1], time.monotonic()))
    if process.wait():
        raise UserError(f"dvc repro failed in the clone: {''.join(lines)[-2000:]}")
    marks.append(("end", time.monotonic()))
    stages = {name: round(after - before, 1) for (name, before), (_, after) in pairwise(marks)}
    return {"seconds": round(time.monotonic() - started, 1), "stages": stages}


def main() -> None:
    """Measure both versions on all cores and on one, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline")
    parser.add_argument("--tiny", action="store_true", help="operands 0-9, no result: a test")
    parser.add_argument("--result", default="pipeline", help="name of the result")
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"first_version": FIRST_VERSION}
    with cli_errors():
        for name, cores in (("all_cores", allowed), ("one_core", allowed[:1])):
            rows = {}
            for version in COMMITS:
                with tempfile.TemporaryDirectory() as scratch:
                    folder = Path(scratch) / "clone"
                    rows[version] = measure(folder, version, cores, options.tiny)
                print(f"{name}, {version}: {rows[version]}", flush=True)
            now, first = (rows[version]["stages"]["train"] for version in COMMITS)
            figures[name] = {
                "cores": len(cores),
                **rows,
                "training_ratio": round(now / first, 2),
            }
            print(
                f"{name}: training takes {now / first:.2f} times the first version's, "
                f"target {LARGEST_TRAINING_RATIO}"
            )
        if not options.tiny:
            print(f"wrote {write(options.result, figures)}")


if __name__ == "__main__":
    main()
