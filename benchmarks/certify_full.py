"""Decode every equation of a model's domain with the graphs that a service loads.

    make certify-full        python -m benchmarks.certify_full

`stages.evaluate` certifies the PyTorch model by one pass and the graphs on a sample. This takes no
shortcut: each equation is answered as the service answers it, token by token by onnxruntime, and
compared with exact arithmetic. Writes benchmarks/results/certify-full.json.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Equation, solve
from benchmarks.results_file import ROOT, write
from stages.certify import Equations, WorkerModel, run_over_shards

SHARD, BATCH, FIRST_FAILURES = 10_000, 500, 10


def find_wrong(model: WorkerModel, equations: Equations) -> np.ndarray:
    """Return whether the decoded answer of each equation is wrong or has no end: [N] bool."""
    wrong: list[bool] = []
    for part in equations.split(BATCH):
        operands = zip(part.a.tolist(), part.b.tolist(), strict=True)
        questions = [Equation(a, part.operation, b) for a, b in operands]
        answers = model.onnx_model.answer(questions)
        pairs = zip(questions, answers, strict=True)
        wrong += [not answer.ended or answer.text != solve(question) for question, answer in pairs]
    return np.array(wrong)


def certify(directory: Path) -> dict[str, Any]:
    """Return the equations of the domain, the errors in them, and the first wrong ones.

    Raises:
        UserError: the domain is too large to list.
    """
    grammar = artifacts.load_config(directory).get_grammar()
    if not grammar.is_listed:
        raise UserError(f"the domain has {grammar.size:,} equations, too many to list")
    started = time.monotonic()
    domain = [Equations(name, *grammar.equations(name)) for name in grammar.operations]
    results = run_over_shards(find_wrong, directory, domain, SHARD, "certify-full")
    failures = [
        f"{part.a[row]}{part.operation}{part.b[row]}="
        for part, wrong in zip(domain, results, strict=True)
        for row in np.flatnonzero(wrong)
    ]
    return {
        "equations": sum(map(len, results)),
        "errors": len(failures),
        "first_failures": failures[:FIRST_FAILURES],
        "seconds": round(time.monotonic() - started, 1),
        "model_digest": artifacts.digest(directory),
    }


def main() -> None:
    """Count and write the result."""
    with cli_errors():
        figures = certify(ROOT / "model")
        path = write("certify-full", figures)
        print(f"{figures['errors']} errors in {figures['equations']:,} equations: {path}")
        if figures["errors"]:
            raise UserError(f"wrong answers, such as {', '.join(figures['first_failures'])}")


if __name__ == "__main__":
    main()
