"""make bench-beam: what a beam search changes, where the model is not exact yet.

A training of a seventh of the steps leaves errors. The same equations are then decoded greedily and
by beams of several widths, by the serving graphs: how many answers change, how many are wrong, what
it costs.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from arithmetic import bundle, layouts
from arithmetic.engine import Engine
from arithmetic.errors import reported
from arithmetic.grammar import OPERATIONS, render
from benchmarks.module_run import ROOT
from benchmarks.results_file import write
from benchmarks.trial import Changes, trial

CHANGES: Changes = {
    "train": {"flat_steps": 0, "decay_steps": 190},
    "evaluate": {"lowest_margins": 0, "random_sample": 1000},
}
WIDTHS = (1, 2, 4, 8)
EQUATIONS = 100_000  # of each operation
ROUNDS = 20


def milliseconds(engine: Engine, operation: str, prompts: np.ndarray, width: int) -> float:
    """Median of a call, after one that warms up."""
    engine.generate(operation, prompts, width)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        engine.generate(operation, prompts, width)
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1e3, 3)


def answers(engine: Engine, operation: str, prompts: np.ndarray, width: int) -> list[str]:
    """What a user reads, of prompts [N, P]."""
    digits = engine.grammar.digits
    return [
        layouts.read_answer(operation, row, digits).text
        for part in np.array_split(prompts, len(prompts) // 1000)
        for row in engine.generate(operation, part, width).tolist()
    ]


def measured(folder: Path) -> list[dict[str, Any]]:
    """One row an operation and width."""
    engine = Engine(folder)
    grammar = engine.grammar
    rng = np.random.default_rng(1)
    rows = []
    for operation in grammar.operations:
        a = rng.integers(0, grammar.max_operand + 1, EQUATIONS)
        b = rng.integers(0, grammar.max_operand + 1, EQUATIONS)
        numbers = OPERATIONS[operation].compute(a, b)
        right = [render(row) for row in zip(*(n.tolist() for n in numbers), strict=True)]
        prompts = layouts.prompts(operation, a, b, grammar.digits).astype(np.int64)
        greedy: list[str] = []
        for width in WIDTHS:
            found = answers(engine, operation, prompts, width)
            greedy = greedy or found
            row = {
                "operation": operation,
                "width": width,
                "equations": EQUATIONS,
                "errors": sum(x != y for x, y in zip(found, right, strict=True)),
                "answers_changed": sum(x != y for x, y in zip(found, greedy, strict=True)),
                "milliseconds_for_1": milliseconds(engine, operation, prompts[:1], width),
                "milliseconds_for_64": milliseconds(engine, operation, prompts[:64], width),
            }
            rows.append(row)
            print(
                f"{operation:>9} {width:5d} {row['errors']:7,d} {row['answers_changed']:7,d} "
                f"{row['milliseconds_for_1']:9.2f} {row['milliseconds_for_64']:9.2f}",
                flush=True,
            )
    return rows


def main() -> None:
    with reported(), tempfile.TemporaryDirectory() as scratch:
        print(f"training with {CHANGES['train']}", flush=True)
        found = trial("beam", ROOT / "params.yaml", CHANGES, Path(scratch))
        evaluation = found["evaluation"]
        print(f"{evaluation['errors']:,} wrong of {evaluation['equations']:,} by greedy decoding")
        print("operation width  errors changed     1: ms    64: ms")
        rows = measured(Path(scratch) / "bundle")
        figures = {
            "changes": CHANGES,
            "errors_on_the_domain": evaluation["errors"],
            "bundle_sha256": bundle.digest(Path(scratch) / "bundle"),
            "rows": rows,
        }
        write("beam", figures)


if __name__ == "__main__":
    main()
