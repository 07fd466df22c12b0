"""Weight the equations of a domain for the training data.

Uniform draws leave out what is rare and difficult: carries through many digits, zeros and nines,
some combination of a token's dependencies. Every function returns weights over the equations it is
given, [N], summing to about 1. Of a domain too large to list, candidates are drawn that follow the
mix already.
"""

from collections.abc import Callable

import numpy as np

from arithmetic import formats
from arithmetic.grammar import OPERATIONS, Grammar, Operands
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.params import Generate

# Candidates of a domain too large to list.
POOL = 1_000_000

# Whether a pair of digits is on the edge of a carry or borrow: one from the right runs through.
EDGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": lambda x, y: x + y == 9,
    "-": lambda x, y: x == y,
}


def pair_table(operation: str, cascade_share: float, zeros_and_nines_share: float) -> np.ndarray:
    """Return the probability of each pair of digits at one position: [10, 10], summing to 1."""
    x, y = np.meshgrid(np.arange(10), np.arange(10), indexing="ij")
    edge = EDGES[operation](x, y) / 10
    heavy_digit = np.where(np.isin(np.arange(10), (0, 9)), 0.3, 0.05)
    heavy = heavy_digit[:, None] * heavy_digit[None, :]
    uniform = 1 - cascade_share - zeros_and_nines_share
    return cascade_share * edge + zeros_and_nines_share * heavy + uniform / 100


def by_pairs(a: np.ndarray, b: np.ndarray, digits: int, table: np.ndarray) -> np.ndarray:
    """Return the product of the pairs' probabilities over the digit positions."""
    weights = np.ones(len(a))
    for position in range(digits):
        weights *= table[a // 10**position % 10, b // 10**position % 10]
    return weights


def by_second_operand(b: np.ndarray, digits: int) -> np.ndarray:
    """Return weights uniform but for the second operand's length, drawn as 1 : 2 : 3 : ….

    Short divisors have long quotients, and one in a hundred divisors is short.
    """
    length = np.ones_like(b)
    for position in range(1, digits):
        length += b >= 10**position
    counts = np.bincount(length, minlength=digits + 1)
    return length / np.unique(length).sum() / counts[length]


def by_cells(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Weight every token equally, then each combination of its dependencies, then each equation.

    A token that depends on several earlier ones is a table with a cell for each combination; drawn
    evenly, no cell stays unseen, however rare it is among the equations.
    """
    columns = formats.build_columns(operation, a, b, digits)
    weights = np.zeros(len(a))
    tables = [indices for indices in columns.dependencies if len(indices) > 1]
    for indices in tables:
        cell = np.zeros(len(a), np.int64)
        for index in indices:
            cell = cell * VOCABULARY_SIZE + columns[index]
        counts = np.bincount(cell)
        weights += 1 / (len(tables) * np.count_nonzero(counts) * counts[cell])
    return weights


def candidates(
    grammar: Grammar, operation: str, params: Generate, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct equations to draw from, and their weights in the mix of `generate`.

    Args:
        count: equations that will be drawn of them.

    Returns:
        operand_1, operand_2, weights, [N] each: the whole domain, or of one too large to list at
        least POOL candidates, as far as there are so many.
    """
    if grammar.is_listed:
        a, b = grammar.equations(operation)
        if operation in EDGES:
            mixed = by_pairs(a, b, grammar.digits, _table(operation, params))
        elif operation == "/":
            mixed = by_second_operand(b, grammar.digits)
        else:
            mixed = np.full(len(a), 1 / len(a))
    else:
        a, b = pool(grammar, operation, params, max(POOL, 4 * count), rng)
        mixed = np.full(len(a), 1 / len(a))
    if params.cells_share:
        cells = by_cells(operation, a, b, grammar.digits)
        mixed = (1 - params.cells_share) * mixed + params.cells_share * cells
    return a, b, mixed


def pool(
    grammar: Grammar, operation: str, params: Generate, count: int, rng: np.random.Generator
) -> Operands:
    """Return about `count` distinct equations of a large domain.

    Half have operands of any length alike (uniform operands are nearly all of full length, and
    short answers would never be seen), half of full length; the pairs of digits of + and - are
    drawn by `pair_table`.
    """
    digits = grammar.digits
    table = _table(operation, params).ravel() if operation in EDGES else np.full(100, 0.01)
    pairs = rng.choice(100, size=(count, digits), p=table)
    longest = rng.integers(1, digits + 1, size=(2, count, 1))
    longest[:, count // 2 :] = digits
    powers = 10 ** np.arange(digits, dtype=np.int64)
    places = np.arange(digits)
    a = (np.where(places < longest[0], pairs // 10, 0) * powers).sum(1)
    b = (np.where(places < longest[1], pairs % 10, 0) * powers).sum(1)
    inside = (a <= grammar.max_operand) & (b <= grammar.max_operand)
    inside &= b >= OPERATIONS[operation].smallest_operand_2
    a, b = a[inside], b[inside]
    _, first = np.unique(grammar.index(operation, a, b), return_index=True)
    return a[first], b[first]


def _table(operation: str, params: Generate) -> np.ndarray:
    return pair_table(operation, params.cascade_share, params.zeros_and_nines_share)
