"""Time the decoders of model/ beside the first version's positional graphs.

    make bench-decoders        python -m benchmarks.decoders [--model DIR]

One process, one thread; both graphs answer the same prompts in turn, so that what else the machine
does affects both. Writes benchmarks/results/decoders.json.
"""

import argparse
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from arithmetic import formats
from arithmetic.errors import UserError, cli_errors
from arithmetic.inference import GENERATED, PROMPTS, OnnxModel
from arithmetic.tokenizer import END
from benchmarks.results_file import ROOT, write

FIRST_VERSION = "a4cc569"  # its graphs are committed, one for each operation
FIRST_GRAPHS = {"+": "bundle/decoders/addition.onnx", "-": "bundle/decoders/subtraction.onnx"}
DIGITS = 3  # of the first version's operands
BATCHES = (1, 8, 64, 128)
ROUNDS = 200


def load_first_version(operation: str) -> ort.InferenceSession:
    """Return the first version's graph of an operation; raise UserError without that commit."""
    command = ["git", "show", f"{FIRST_VERSION}:{FIRST_GRAPHS[operation]}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise UserError(
            f"commit {FIRST_VERSION} is not here: {done.stderr.decode().strip()}",
            "run `git fetch --unshallow`",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(done.stdout, options, providers=["CPUExecutionProvider"])


def compare(model: OnnxModel, operation: str, batch: int, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of both graphs for one batch, and their ratios.

    Raises:
        UserError: a generated sequence has no END where it belongs.
    """
    name = formats.get_format(operation).name
    first = load_first_version(operation)
    a, b = np.random.default_rng(batch).integers(0, 10**DIGITS, (2, batch))
    prompts = formats.encode_prompts(operation, a, b, DIGITS).astype(np.int64)
    graphs = {
        "first_version": lambda: first.run([GENERATED], {PROMPTS: prompts})[0],
        "now": lambda: model.generate(name, prompts),
    }
    times: dict[str, list[float]] = {key: [] for key in graphs}
    for key, graph in graphs.items():  # the first call allocates
        if not (graph()[:, -1] == END).all():
            raise UserError(f"the graph {key} of {operation!r} does not end its sequences")
    for _ in range(rounds):
        for key, graph in graphs.items():
            started = time.perf_counter()
            graph()
            times[key].append((time.perf_counter() - started) * 1e3)
    row: dict[str, Any] = {"operation": operation, "batch": batch}
    for statistic, function in (("median", median), ("minimum", min)):
        values = {key: function(part) for key, part in times.items()}
        row[statistic] = {f"{key}_ms": round(value, 3) for key, value in values.items()}
        row[statistic]["ratio"] = round(values["now"] / values["first_version"], 2)
    return row


def main() -> None:
    """Measure every batch size of + and -, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoders")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--result", default="decoders", help="name of the result")
    options = parser.parse_args()
    with cli_errors():
        model = OnnxModel(options.model)
        if model.grammar.digits != DIGITS:
            raise UserError(f"{options.model} is not a model of {DIGITS}-digit operands")
        rows = []
        for operation in FIRST_GRAPHS:
            for batch in BATCHES:
                row = compare(model, operation, batch, options.rounds)
                rows.append(row)
                shown = row["median"]
                print(
                    f"{operation}  batch of {batch:3d}: first version "
                    f"{shown['first_version_ms']:7.3f} ms, now {shown['now_ms']:7.3f} ms, "
                    f"{shown['ratio']:.2f} times (minima {row['minimum']['ratio']:.2f})",
                    flush=True,
                )
        figures = {"first_version": FIRST_VERSION, "rounds": options.rounds, "rows": rows}
        print(f"wrote {write(options.result, figures)}")


if __name__ == "__main__":
    main()
