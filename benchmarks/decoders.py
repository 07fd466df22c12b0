"""make bench-decoders AGAINST=COMMIT: what a change did to the time of the serving graphs.

The committed bundle's greedy graphs and those of another commit answer the same prompts in turn, in
one process and on one thread; the ratio of each pair is taken, and the median counts. So what the
machine does meanwhile, it does to both.
"""

import argparse
import io
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from arithmetic import layouts
from arithmetic.engine import Engine
from arithmetic.errors import Problem, reported
from benchmarks.module_run import ROOT
from benchmarks.results_file import write

BUNDLES = ("bundle", "four-operations/bundle")
BATCHES = (1, 8, 64)
ROUNDS = 40
CALLS = 10  # of each graph in a round


def of_commit(commit: str, folder: Path) -> Path:
    """Unpack both bundles of a commit; raises Problem if it has none."""
    packed = subprocess.run(
        ["git", "archive", commit, "--", *BUNDLES], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        raise Problem(f"no bundles at {commit}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def milliseconds(engine: Engine, operation: str, prompts: np.ndarray) -> float:
    """Of one call, the mean of several; prompts [N, P] int64."""
    started = time.perf_counter()
    for _ in range(CALLS):
        engine.generate(operation, prompts)
    return (time.perf_counter() - started) / CALLS * 1e3


def compared(before: Engine, after: Engine, operation: str, batch: int) -> dict[str, Any]:
    """One row: medians of both, and of their ratios."""
    grammar = after.grammar
    a, b = np.random.default_rng(1).integers(1, grammar.max_operand + 1, (2, batch))
    prompts = layouts.prompts(operation, a, b, grammar.digits).astype(np.int64)
    pairs = []
    for number in range(ROUNDS + 1):
        first = milliseconds(before, operation, prompts)
        pairs.append((first, milliseconds(after, operation, prompts)))
        if number == 0:
            pairs.clear()  # the first calls allocate
    return {
        "operation": operation,
        "batch": batch,
        "before_ms": round(float(np.median([first for first, _ in pairs])), 3),
        "after_ms": round(float(np.median([second for _, second in pairs])), 3),
        "ratio": round(float(np.median([second / first for first, second in pairs])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare serving graphs with another commit's.")
    parser.add_argument("against", help="a commit whose bundles have the same grammars")
    with reported():
        against = parser.parse_args().against
        rows: dict[str, list[dict[str, Any]]] = {}
        with tempfile.TemporaryDirectory() as scratch:
            other = of_commit(against, Path(scratch))
            for name in BUNDLES:
                before, after = Engine(other / name), Engine(ROOT / name)
                rows[name] = []
                for operation in after.grammar.operations:
                    for batch in BATCHES:
                        row = compared(before, after, operation, batch)
                        rows[name].append(row)
                        print(
                            f"{name:24}{operation} batch of {batch:2d}: {row['before_ms']:7.3f} ms "
                            f"before, {row['after_ms']:7.3f} now, {row['ratio']:.2f} of it",
                            flush=True,
                        )
        print(f"wrote {write('decoders', {'against': against, 'rows': rows})}")


if __name__ == "__main__":
    main()
