"""Time the decoders of model/ beside the first version's positional graphs.

    make bench-decoders        python -m benchmarks.decoders

One process, one thread; both graphs answer the same prompts in turn, so that what else the machine
does affects both. Writes benchmarks/results/decoders.json.
"""

from timeit import timeit
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd

from arithmetic import formats
from arithmetic.errors import UserError, cli_errors
from arithmetic.inference import GENERATED, PROMPTS, OnnxModel
from arithmetic.tokenizer import END
from benchmarks.results_file import ROOT, table, write
from benchmarks.workspace import FIRST_VERSION
from registry.commits import git

# Committed in the first version, one for each operation.
FIRST_GRAPHS = {"+": "bundle/decoders/addition.onnx", "-": "bundle/decoders/subtraction.onnx"}
DIGITS = 3  # of the first version's operands
BATCHES = (1, 8, 64, 128)
ROUNDS = 200


def load_first_version(operation: str) -> ort.InferenceSession:
    """Return the first version's graph of an operation; raise UserError without that commit."""
    content = git(ROOT, "show", f"{FIRST_VERSION}:{FIRST_GRAPHS[operation]}")
    if content is None:
        raise UserError(f"commit {FIRST_VERSION} is not here", "run `git fetch --unshallow`")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def compare(model: OnnxModel, operation: str, batch: int) -> dict[str, Any]:
    """Return the milliseconds of both graphs for one batch, and their ratios.

    Raises:
        UserError: a generated sequence has no END where it belongs.
    """
    name, first = formats.get_format(operation).name, load_first_version(operation)
    a, b = np.random.default_rng(batch).integers(0, 10**DIGITS, (2, batch))
    prompts = formats.encode_prompts(operation, a, b, DIGITS).astype(np.int64)
    graphs = {
        "first_version": lambda: first.run([GENERATED], {PROMPTS: prompts})[0],
        "now": lambda: model.generate(name, prompts),
    }
    for key, graph in graphs.items():  # the first call allocates
        if not (graph()[:, -1] == END).all():
            raise UserError(f"the graph {key} of {operation!r} does not end its sequences")
    times = pd.DataFrame(
        {f"{key}_ms": timeit(graph, number=1) * 1e3 for key, graph in graphs.items()}
        for _ in range(ROUNDS)
    )
    statistics = pd.DataFrame({"median": times.median(), "minimum": times.min()})
    statistics.loc["ratio"] = statistics.loc["now_ms"] / statistics.loc["first_version_ms"]
    return {"operation": operation, "batch": batch, **statistics.round(3).to_dict()}


def main() -> None:
    """Measure, print and write the result."""
    with cli_errors():
        model = OnnxModel(ROOT / "model")
        if model.grammar.digits != DIGITS:
            raise UserError(f"model/ is not a model of {DIGITS}-digit operands")
        rows = [compare(model, operation, n) for operation in FIRST_GRAPHS for n in BATCHES]
        print(
            table([{"": row["operation"], "batch": row["batch"], **row["median"]} for row in rows])
        )
        figures = {"first_version": FIRST_VERSION, "rounds": ROUNDS, "rows": rows}
        print(f"wrote {write('decoders', figures)}")


if __name__ == "__main__":
    main()
