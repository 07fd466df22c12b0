"""A data set that `generate` wrote, read by the stages that train and judge on it."""

from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidParams
from arithmetic.grammar import OPERATIONS, Grammar

_COLUMNS = {"operand_1": np.int64, "operation": str, "operand_2": np.int64}


def read_split(path: Path, grammar: Grammar) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both operands, [N] int64 each, by operation, in the grammar's order and the file's.

    Raises:
        InvalidParams: the file is missing or damaged, or holds nothing, or an equation outside the
            grammar.
    """
    try:
        data = pd.read_csv(path, usecols=list(_COLUMNS), dtype=_COLUMNS)
    except (OSError, ValueError) as error:
        raise InvalidParams(f"{path} is not data of `generate` ({error}); run dvc repro") from error
    if not len(data):
        raise InvalidParams(f"{path} holds no equation; run dvc repro")
    found, largest = {}, grammar.max_operand
    for name in grammar.operations:
        rows = data[data["operation"] == name]
        a, b = rows["operand_1"], rows["operand_2"]
        inside = a.between(0, largest) & b.between(OPERATIONS[name].smallest_operand_2, largest)
        if inside.all():
            found[name] = a.to_numpy(), b.to_numpy()
    if sum(len(a) for a, _ in found.values()) != len(data):
        raise InvalidParams(f"{path} holds equations outside the grammar; run dvc repro")
    return found
