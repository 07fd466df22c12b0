"""Train and certify the default params with ten fresh seeds.

    make seeds        python -m benchmarks.seeds [--seeds 10] [--first 101]

Data and training both take the seed. Two seeds run at a time, one core each. The result is written
after every seed, and a later run continues from it. Writes benchmarks/results/seeds.json.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from arithmetic.errors import cli_errors
from benchmarks.results_file import code_digest, read, write
from benchmarks.workspace import TINY, Changes, copy, python

STAGES = ("generate", "train", "export", "evaluate")
FIRST_SEED = 101  # not one that the params were chosen with
SEEDS_AT_ONCE = 2


def run_seed(seed: int, core: int, changes: Changes) -> dict[str, Any]:
    """Run all stages with a seed in a copy of the tree, on one core; return its row.

    Raises:
        UserError: a stage failed.
    """
    changes = {section: dict(values) for section, values in changes.items()}
    for section in ("generate", "train"):
        changes.setdefault(section, {})["seed"] = seed
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = copy(Path(scratch), changes)
        for stage in STAGES:
            started = time.monotonic()
            python(folder, "-m", f"stages.{stage}", core=core)
            seconds[stage] = round(time.monotonic() - started, 1)
        training = json.loads((folder / "reports/training.json").read_bytes())
        report = json.loads((folder / "reports/evaluation.json").read_bytes())
    return {
        "seed": seed,
        "parameters": training["parameters"],
        "steps": training["steps"],
        **{key: report[key] for key in ("errors", "equations", "minimum_margin")},
        "seconds": seconds,
    }


def run_seeds(seeds: list[int], changes: Changes, rows: list[dict[str, Any]], result: str) -> None:
    """Add the row of each seed to `rows`, and write them after each; no result without a name."""
    cores = sorted(os.sched_getaffinity(0))[:SEEDS_AT_ONCE]
    remaining, lock = iter(seeds), Lock()

    def use(core: int) -> None:
        while True:
            with lock:
                seed = next(remaining, None)
            if seed is None:
                return
            row = run_seed(seed, core, changes)
            with lock:
                rows.append(row)
                print(describe(row), flush=True)
                if result:
                    save(rows, result)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(use, cores))


def describe(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    return (
        f"{row['seed']:5d} {row['errors']:7d} {row['minimum_margin']:7.2f} "
        f"{row['parameters']:10,d} {row['steps']:6d} {row['seconds']['train']:8.1f} "
        f"{row['seconds']['evaluate']:10.1f}"
    )


def save(rows: list[dict[str, Any]], result: str) -> None:
    """Write the rows by seed."""
    rows.sort(key=lambda row: row["seed"])
    exact = sum(row["errors"] == 0 for row in rows)
    write(result, {"exact": exact, "seeds": rows, "code": digest()})


def digest() -> str:
    """Return a digest of what decides the rows."""
    return code_digest("arithmetic/*.py", "stages/*.py", "params.yaml", "hard_cases.csv")


def main() -> None:
    """Run the seeds that the result does not have yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--tiny", action="store_true", help="operands 0-9, no result: a test")
    parser.add_argument("--result", default="seeds", help="name of the result")
    options = parser.parse_args()
    result = "" if options.tiny else options.result
    seeds = range(options.first, options.first + options.seeds)
    with cli_errors():
        rows = [
            row
            for row in read(result, digest()).get("seeds", [])
            if result and row["seed"] in seeds
        ]
        print(" seed  errors  margin parameters  steps  train s  evaluate s")
        for row in rows:
            print(describe(row))
        missing = [seed for seed in seeds if seed not in {row["seed"] for row in rows}]
        run_seeds(missing, TINY if options.tiny else {}, rows, result)
        exact = sum(row["errors"] == 0 for row in rows)
        print(f"exact on the whole domain: {exact} of {len(rows)} seeds")


if __name__ == "__main__":
    main()
