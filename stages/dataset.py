"""Name the data files of the pipeline and read them."""

from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidParamsError
from arithmetic.grammar import OPERATIONS, Grammar, Operands

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
    operands, largest = {}, grammar.max_operand
    for name in grammar.operations:
        rows = data[data["operation"] == name]
        a, b = rows["operand_1"], rows["operand_2"]
        inside = a.between(0, largest) & b.between(OPERATIONS[name].smallest_operand_2, largest)
        if inside.all():
            operands[name] = a.to_numpy(), b.to_numpy()
    if sum(len(a) for a, _ in operands.values()) != len(data):
        raise InvalidParamsError(f"{path} has equations outside the grammar", hint)
    return operands
