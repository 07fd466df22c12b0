"""Add the equations that a service answered wrongly to hard_cases.csv, which training reads.

    python -m scripts.hard_cases mispredictions.jsonl

Each equation is added once. A rotated file beside it (`mispredictions.jsonl.1`) is read first.
Lines that are damaged or outside the domain of params.yaml are listed and left out.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from arithmetic.errors import InvalidEquationError, UserError, cli_errors
from arithmetic.grammar import Grammar
from stages.params import load_params

ROOT = Path(__file__).resolve().parents[1]
COLUMN = "equation"


def read_mispredictions(path: Path, grammar: Grammar) -> Iterator[str]:
    """Yield the equations of a file of JSON lines; print a message for each line left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}",
            "give the file that the service writes: make hard-cases FROM=mispredictions.jsonl",
        ) from error
    for number, line in enumerate(lines, 1):
        try:
            yield str(grammar.parse(json.loads(line)[COLUMN]))
        except InvalidEquationError as error:
            print(f"skipped: {path}:{number}: {error.message}", file=sys.stderr)
        except (ValueError, KeyError, TypeError):
            reason = f"not a JSON object with an equation: {line[:60]!r}"
            print(f"skipped: {path}:{number}: {reason}", file=sys.stderr)


def add(source: Path, target: Path, grammar: Grammar) -> tuple[int, int]:
    """Add the equations of `source` to `target`; return how many are new, and the total."""
    text = target.read_text(encoding="utf-8") if target.exists() else COLUMN
    header, *present = text.splitlines() or [""]
    if header != COLUMN:
        raise UserError(f"{target} has the columns {header!r}", f"give it one column, {COLUMN}")
    equations = dict.fromkeys(present)
    rotated = source.with_name(f"{source.name}.1")
    for path in [rotated, source] if rotated.exists() else [source]:
        equations |= dict.fromkeys(read_mispredictions(path, grammar))
    target.write_text("\n".join([COLUMN, *equations]) + "\n", encoding="utf-8")
    return len(equations) - len(set(present)), len(equations)


def main() -> None:
    """Add one file."""
    parser = argparse.ArgumentParser(prog="python -m scripts.hard_cases")
    parser.add_argument("source", type=Path, help="mispredictions.jsonl of a service")
    arguments = parser.parse_args()
    with cli_errors():
        grammar = load_params(ROOT / "params.yaml").generate.grammar
        added, total = add(arguments.source, ROOT / "hard_cases.csv", grammar)
        print(f"hard_cases.csv: {added} equations added, {total} in all; next: `dvc repro`")


if __name__ == "__main__":
    main()
