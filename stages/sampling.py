"""Weight the equations of a domain for the training data.

Uniform draws leave out what is rare and difficult: carries through many digits, zeros and nines,
input combinations of a token. The functions `by_…` return weights over the equations they get,
[N], summing to about 1. Of a domain too large to list, candidates are drawn that follow the mix.
"""

from collections.abc import Callable

import numpy as np

from arithmetic import formats
from arithmetic.grammar import Grammar, Operands, count_digits
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.params import Generate

POOL = 1_000_000  # candidates of a domain too large to list

# Whether a pair of digits is on the edge of a carry or borrow: one from the right runs through.
EDGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": lambda x, y: x + y == 9,
    "-": lambda x, y: x == y,
}


def pair_table(operation: str, params: Generate) -> np.ndarray:
    """Return the probability of each pair of digits at one position: [10, 10], summing to 1."""
    edge = EDGES[operation](*np.indices((10, 10))) / 10
    digit = np.where(np.isin(np.arange(10), (0, 9)), 0.3, 0.05)
    heavy = np.outer(digit, digit)
    uniform = 1 - params.cascade_share - params.zeros_and_nines_share
    return params.cascade_share * edge + params.zeros_and_nines_share * heavy + uniform / 100


def by_pairs(a: np.ndarray, b: np.ndarray, digits: int, table: np.ndarray) -> np.ndarray:
    """Return the product of the pairs' probabilities over the digit positions."""
    weights = np.ones(len(a))
    for position in range(digits):
        weights *= table[a // 10**position % 10, b // 10**position % 10]
    return weights


def by_second_operand(b: np.ndarray) -> np.ndarray:
    """Return weights uniform but for the second operand's length, drawn as 1 : 2 : 3 : ….

    Short divisors have long quotients, and one in a hundred divisors is short.
    """
    length = count_digits(b)
    return length / np.unique(length).sum() / np.bincount(length)[length]


def by_input_combinations(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Weight every token equally, then each combination of its inputs, then each equation.

    The inputs of a token are the earlier tokens that it depends on. Drawn evenly, no combination of
    them stays unseen, however rare it is among the equations.
    """
    columns = formats.build_columns(operation, a, b, digits)
    weights = np.zeros(len(a))
    inputs = [indices for indices in columns.dependencies if len(indices) > 1]
    for indices in inputs:
        combination = np.zeros(len(a), np.int64)
        for index in indices:
            combination = combination * VOCABULARY_SIZE + columns[index]
        counts = np.bincount(combination)
        weights += 1 / (len(inputs) * np.count_nonzero(counts) * counts[combination])
    return weights


def candidates(
    grammar: Grammar, operation: str, params: Generate, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct equations to draw `count` from, and their weights in the mix of `generate`.

    Returns:
        operand_1, operand_2, weights, [N] each: the whole domain, or about POOL candidates of one
        too large to list.
    """
    if grammar.is_listed:
        a, b = grammar.equations(operation)
    else:
        a, b = pool(grammar, operation, params, max(POOL, 4 * count), rng)
    weights = np.full(len(a), 1 / len(a))
    if grammar.is_listed and operation in EDGES:
        weights = by_pairs(a, b, grammar.digits, pair_table(operation, params))
    elif grammar.is_listed and operation == "/":
        weights = by_second_operand(b)
    share = params.input_combinations_share
    if share:
        combinations = by_input_combinations(operation, a, b, grammar.digits)
        weights = (1 - share) * weights + share * combinations
    return a, b, weights


def pool(
    grammar: Grammar, operation: str, params: Generate, count: int, rng: np.random.Generator
) -> Operands:
    """Return about `count` distinct equations of a large domain.

    Half have operands of any length alike (uniform operands are nearly all of full length, and
    short answers would never be seen), half of full length; the pairs of digits of + and - are
    drawn by `pair_table`.
    """
    digits = grammar.digits
    table = pair_table(operation, params).ravel() if operation in EDGES else np.full(100, 0.01)
    pairs = rng.choice(100, size=(count, digits), p=table)
    longest = rng.integers(1, digits + 1, size=(2, count, 1))
    longest[:, count // 2 :] = digits
    places = np.arange(digits)
    a = (np.where(places < longest[0], pairs // 10, 0) * 10**places).sum(1)
    b = (np.where(places < longest[1], pairs % 10, 0) * 10**places).sum(1)
    return grammar.distinct(operation, a, b)
