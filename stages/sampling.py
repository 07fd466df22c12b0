"""How likely each equation of a domain is to be drawn for training.

Uniform draws leave out what rarely happens and is easily got wrong: carries that run through many
digits, zeros and nines, some cell of a digit table in one state of the carry. Every function gives
weights over all equations of an operation, [N], summing to about 1.
"""

from collections.abc import Callable

import numpy as np

from arithmetic import layouts
from arithmetic.grammar import Grammar
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.params import Generate

# Is this pair of digits on the edge? For a sum 9 (a carry from the right runs through), for a
# difference equality (so does a borrow).
EDGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": lambda x, y: x + y == 9,
    "-": lambda x, y: x == y,
}


def pair_table(operation: str, cascade_share: float, zeros_and_nines_share: float) -> np.ndarray:
    """Probability of each pair of digits at one position: [10, 10], summing to 1."""
    x, y = np.meshgrid(np.arange(10), np.arange(10), indexing="ij")
    edge = EDGES[operation](x, y) / 10
    heavy_digit = np.where(np.isin(np.arange(10), (0, 9)), 0.3, 0.05)
    heavy = heavy_digit[:, None] * heavy_digit[None, :]
    uniform = 1 - cascade_share - zeros_and_nines_share
    return cascade_share * edge + zeros_and_nines_share * heavy + uniform / 100


def by_pairs(a: np.ndarray, b: np.ndarray, digits: int, table: np.ndarray) -> np.ndarray:
    """Product of the pairs' probabilities over the digit positions."""
    weights = np.ones(len(a))
    for position in range(digits):
        weights *= table[a // 10**position % 10, b // 10**position % 10]
    return weights


def by_second_operand(b: np.ndarray, digits: int) -> np.ndarray:
    """Uniform but for the second operand's digits, drawn as 1 : 2 : 3 : …; short divisors have
    long quotients, and one in a hundred divisors is short."""
    length = np.ones_like(b)
    for position in range(1, digits):
        length += b >= 10**position
    counts = np.bincount(length, minlength=digits + 1)
    return length / np.unique(length).sum() / counts[length]


def by_cells(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Every token equally likely, then each combination of what it looks at, then each equation.

    A token that needs the states of several earlier ones is a table with that many cells; drawn
    evenly, no cell of any token stays unseen, however rare it is among the equations.
    """
    page, _ = layouts.sheet(operation, a, b, digits)
    weights = np.zeros(len(a))
    tables = [indices for indices in page.looks_at if len(indices) > 1]
    for indices in tables:
        cell = np.zeros(len(a), np.int64)
        for index in indices:
            cell = cell * VOCABULARY_SIZE + page[index]
        counts = np.bincount(cell)
        weights += 1 / (len(tables) * np.count_nonzero(counts) * counts[cell])
    return weights


def weights(grammar: Grammar, operation: str, params: Generate) -> np.ndarray:
    """The mix that `generate` asks for, over `grammar.equations(operation)`."""
    a, b = grammar.equations(operation)
    if operation in EDGES:
        table = pair_table(operation, params.cascade_share, params.zeros_and_nines_share)
        mixed = by_pairs(a, b, grammar.digits, table)
    elif operation == "/":
        mixed = by_second_operand(b, grammar.digits)
    else:
        mixed = np.full(len(a), 1 / len(a))
    if params.cells_share:
        cells = by_cells(operation, a, b, grammar.digits)
        mixed = (1 - params.cells_share) * mixed + params.cells_share * cells
    return mixed
