"""Name the data files of the pipeline and read them."""

from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidParamsError
from arithmetic.grammar import OPERATIONS, Grammar, Operands, count_digits

SPLITS = ("train", "validation", "test")
COLUMNS = {"operand_1": np.int64, "operation": str, "operand_2": np.int64}


def split_path(split: str) -> Path:
    """Return the CSV of a split."""
    return Path(f"data/{split}.csv")


def read_split(split: str, grammar: Grammar) -> dict[str, Operands]:
    """Read both operands, [N] int64 each, by operation, in the grammar's order and the file's.

    Raises:
        InvalidParamsError: the file is missing, damaged or empty, or holds an equation outside the
            grammar.
    """
    path, hint = split_path(split), "run `dvc repro` to write it again"
    try:
        data = pd.read_csv(path, usecols=list(COLUMNS), dtype=COLUMNS)
    except (OSError, ValueError) as error:
        raise InvalidParamsError(f"cannot read {path}: {error}", hint) from error
    if not len(data):
        raise InvalidParamsError(f"{path} has no equations", hint)
    operands = {}
    for operation in grammar.operations:
        rows = data[data["operation"] == operation]
        operands[operation] = rows["operand_1"].to_numpy(), rows["operand_2"].to_numpy()
    inside = (grammar.contains(name, a, b).sum() for name, (a, b) in operands.items())
    if sum(inside) != len(data):
        raise InvalidParamsError(f"{path} has equations outside the grammar", hint)
    return operands


def build_frame(equations: dict[str, Operands]) -> pd.DataFrame:
    """Return equations by operation as rows: operation, a, b, answer_length."""
    frames = []
    for operation, (a, b) in equations.items():
        length = count_digits(OPERATIONS[operation].compute(a, b)[0])
        columns = {"operation": operation, "a": a, "b": b, "answer_length": length}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)
