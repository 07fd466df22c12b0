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
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

from arithmetic.errors import cli_errors
from benchmarks.results_file import code_digest, read, table, write
from benchmarks.workspace import TINY, Changes, copy, on_cores, run

STAGES = ("generate", "train", "export", "evaluate")
FIRST_SEED = 101  # not one that the params were chosen with
CODE = ("arithmetic/*.py", "stages/*.py", "params.yaml", "hard_cases.csv")


def run_seed(seed: int, core: int, changes: Changes) -> dict[str, Any]:
    """Run all stages with a seed in a copy of the tree, on one core; return its row.

    Raises:
        UserError: a stage failed.
    """
    seeded = {section: {**changes.get(section, {}), "seed": seed} for section in STAGES[:2]}
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = copy(Path(scratch), {**changes, **seeded})
        for stage in STAGES:
            started = time.monotonic()
            run([*on_cores(core), "-m", f"stages.{stage}"], folder)
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


def run_seeds(
    seeds: list[int], changes: Changes, rows: list[dict[str, Any]], code: str = ""
) -> None:
    """Add the row of each seed to `rows`, and write them after each if they are of some `code`."""
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)

    def run_on_free_core(seed: int) -> dict[str, Any]:
        core = cores.get()
        try:
            return run_seed(seed, core, changes)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        for job in as_completed([pool.submit(run_on_free_core, seed) for seed in seeds]):
            rows.append(job.result())
            print("seed {seed}: {errors} errors of {equations:,}".format(**rows[-1]), flush=True)
            rows.sort(key=lambda row: row["seed"])
            if code:
                exact = sum(row["errors"] == 0 for row in rows)
                write("seeds", {"exact": exact, "seeds": rows, "code": code})


def main() -> None:
    """Run the seeds that the result does not have yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--tiny", action="store_true", help="operands 0-9, no result: a test")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    code = "" if options.tiny else code_digest(*CODE)
    with cli_errors():
        earlier = read("seeds", code).get("seeds", []) if code else []
        rows = [row for row in earlier if row["seed"] in seeds]
        missing = [seed for seed in seeds if seed not in {row["seed"] for row in rows}]
        run_seeds(missing, TINY if options.tiny else {}, rows, code)
        print(table([row | {"seconds": row["seconds"]["train"]} for row in rows]))
        exact = sum(row["errors"] == 0 for row in rows)
        print(f"exact on the whole domain: {exact} of {len(rows)} seeds")


if __name__ == "__main__":
    main()
