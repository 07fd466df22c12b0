"""Decode every equation of a model's domain with the graphs that a service loads.

    make certify-full        python -m benchmarks.certify_full

`stages.evaluate` certifies the PyTorch model by one pass and the graphs on a sample. This takes no
shortcut: each equation is answered as the service answers it, token by token by onnxruntime, and
compared with exact arithmetic. Writes benchmarks/results/certify-full.json.
"""

import time
from pathlib import Path
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Equation, solve
from benchmarks.results_file import ROOT, write
from stages.certify import Columns, Equations, WorkerModel, run_over_shards
from stages.dataset import build_frame

SHARD, FIRST_FAILURES = 500, 10


def find_wrong(model: WorkerModel, equations: Equations) -> Columns:
    """Return whether the decoded answer of each equation is `wrong` or has no end."""
    operands = zip(equations.a.tolist(), equations.b.tolist(), strict=True)
    questions = [Equation(a, equations.operation, b) for a, b in operands]
    pairs = zip(questions, model.onnx_model.answer(questions), strict=True)
    return {"wrong": [not answer.ended or answer.text != solve(q) for q, answer in pairs]}


def certify(directory: Path) -> dict[str, Any]:
    """Return the equations of the domain, the errors in them, and the first wrong ones.

    Raises:
        UserError: the domain is too large to list.
    """
    grammar = artifacts.load_config(directory).get_grammar()
    if not grammar.is_listed:
        raise UserError(f"the domain has {grammar.size:,} equations, too many to list")
    started = time.monotonic()
    domain = build_frame({name: grammar.equations(name) for name in grammar.operations})
    results = run_over_shards(find_wrong, directory, domain, SHARD, "certify-full")
    wrong = domain[results["wrong"]]
    failures = [str(Equation(row.a, row.operation, row.b)) for row in wrong.itertuples()]
    return {
        "equations": len(results),
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
