"""make certify-full: every equation of the domain, decoded by the graphs that serve.

`evaluate` proves the PyTorch model by a pass and the graphs on a sample. This takes no shortcut:
each equation is generated token by token by onnxruntime, as the service does, and the answer that a
user would read is compared with exact arithmetic.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.errors import reported
from benchmarks.results_file import write
from stages.certify import Equations, Provers
from stages.tally import exact_answers
from stages.torch_setup import cores

PIECE = 200_000  # equations between two lines of progress


def wrong_answers(equations: Equations, generated: np.ndarray, digits: int) -> list[str]:
    """The equations whose decoded answer is not the exact one."""
    expected, _ = exact_answers(equations)
    wrong = []
    # Rows that are the reference token by token need no reading.
    reference = layouts.sequences(
        equations.operation, equations.operand_1, equations.operand_2, digits
    )[:, layouts.prompt_length(digits) :]
    for row in np.flatnonzero((generated != reference).any(1)):
        answer = layouts.read_answer(equations.operation, generated[row].tolist(), digits)
        if answer.text != expected[row] or not answer.ended:
            a, b = equations.operand_1[row], equations.operand_2[row]
            wrong.append(f"{a}{equations.operation}{b}={answer.text}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode the whole domain by the serving graphs.")
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--result", default="certify-full")
    given = parser.parse_args()
    with reported():
        grammar = load_config(given.bundle).grammar
        rows = {}
        started = time.monotonic()
        with Provers(given.bundle, cores()) as provers:
            for operation in grammar.operations:
                every = Equations(operation, *grammar.equations(operation))
                wrong: list[str] = []
                for piece in every.split(PIECE):
                    generated = provers.run("graph", piece, 5_000)
                    wrong += wrong_answers(piece, generated, grammar.digits)
                    print(".", end="", flush=True)
                rows[operation] = {"equations": len(every), "errors": len(wrong)}
                print(f" {operation}  {len(wrong)} wrong of {len(every):,}  {wrong[:5]}")
        figures = {
            "equations": sum(row["equations"] for row in rows.values()),
            "errors": sum(row["errors"] for row in rows.values()),
            "by_operation": rows,
            "seconds": round(time.monotonic() - started, 1),
            "bundle_sha256": bundle.digest(given.bundle),
        }
        path = write(given.result, figures)
        print(f"{figures['errors']} errors in {figures['equations']:,} equations; {path.name}")


if __name__ == "__main__":
    main()
