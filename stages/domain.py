"""Choose the equations to certify: all of them, or of a very large domain a sample.

A domain of up to 10 million equations is listed. Of a larger one these are certified:

    edge cases    every pair of edge numbers (0, the largest operand, d * 10^k, 10^k - 1, 10^k + 1,
                  repeated digits); equal and neighboring operands; of + and -, chains of carries or
                  borrows of every length from every place, with random digits around them
    random        a uniform draw of the others, which bounds their error rate
"""

import numpy as np
from scipy.special import betaincinv

from arithmetic.grammar import OPERATIONS, Grammar, Operands

CHAIN_VARIANTS = 50  # random surroundings of each chain
RANDOM_EQUALS = 1_000
CONFIDENCE = 0.95


def choose_equations(
    grammar: Grammar, operation: str, sampled: int, rng: np.random.Generator
) -> tuple[Operands, int]:
    """Return operands [N] and [N], and how many of them, the first, are edge cases.

    All equations of a listed domain (then 0 are edge cases), else distinct edge cases and about
    `sampled` random equations.
    """
    if grammar.is_listed:
        return grammar.equations(operation), 0
    edges = grammar.distinct(operation, *edge_cases(grammar, operation, rng))
    a = rng.integers(0, grammar.max_operand + 1, sampled)
    b = rng.integers(OPERATIONS[operation].smallest_operand_2, grammar.max_operand + 1, sampled)
    random = grammar.distinct(operation, a, b)
    is_new = ~np.isin(grammar.index(operation, *random), grammar.index(operation, *edges))
    a, b = (np.concatenate([e, r[is_new]]) for e, r in zip(edges, random, strict=True))
    return (a, b), len(edges[0])


def edge_numbers(grammar: Grammar) -> np.ndarray:
    """Return the operands at which something changes, ascending: [N] int64."""
    numbers = {0, grammar.max_operand, grammar.max_operand - 1}
    for power in (10**k for k in range(grammar.digits)):
        numbers |= {power - 1, power + 1} | {digit * power for digit in range(1, 10)}
        numbers |= {digit * (10 * power - 1) // 9 for digit in range(1, 10)}
    return np.array(sorted(n for n in numbers if 0 <= n <= grammar.max_operand), np.int64)


def edge_cases(grammar: Grammar, operation: str, rng: np.random.Generator) -> Operands:
    """Return the edge cases, [N] and [N], with repeats and pairs outside the domain."""
    numbers = edge_numbers(grammar)
    first, second = (axis.ravel() for axis in np.meshgrid(numbers, numbers, indexing="ij"))
    equal = np.concatenate([numbers, rng.integers(0, grammar.max_operand + 1, RANDOM_EQUALS)])
    pairs = [(first, second), (equal, equal), (equal, equal + 1), (equal + 1, equal)]
    if operation in "+-":
        pairs += carry_chains(grammar.digits, operation, rng)
    a, b = zip(*pairs, strict=True)
    return np.concatenate(a), np.concatenate(b)


def carry_chains(digits: int, operation: str, rng: np.random.Generator) -> list[Operands]:
    """Return carries (borrows) from every place through every number of further places.

    Operands [CHAIN_VARIANTS] and [CHAIN_VARIANTS] for each.
    """
    powers = 10 ** np.arange(digits, dtype=np.int64)
    result = []
    for start in range(digits):
        for length in range(digits - start):
            a = rng.integers(0, 10, (CHAIN_VARIANTS, digits))
            b = rng.integers(0, 10, (CHAIN_VARIANTS, digits))
            run = slice(start + 1, start + 1 + length)
            if operation == "+":
                a[:, start] = rng.integers(1, 10, CHAIN_VARIANTS)
                b[:, start] = rng.integers(10 - a[:, start], 10)
                b[:, run] = 9 - a[:, run]
            else:
                b[:, start] = rng.integers(1, 10, CHAIN_VARIANTS)
                a[:, start] = rng.integers(0, b[:, start])
                b[:, run] = a[:, run]
            result.append(((a * powers).sum(1), (b * powers).sum(1)))
    return result


def longest_carry_chain(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Return the most consecutive places with a carry (of `-`, a borrow) out of them: [N] int64."""
    longest = length = np.zeros(len(a), np.int64)
    for power in 10 ** np.arange(1, digits + 1, dtype=np.int64):
        low_a, low_b = a % power, b % power
        has_carry = low_a + low_b >= power if operation == "+" else low_a < low_b
        length = (length + 1) * has_carry
        longest = np.maximum(longest, length)
    return longest


def bound_error_rate(errors: int, equations: int) -> float:
    """Return the one-sided upper bound of the error rate (Clopper and Pearson 1934).

    At `CONFIDENCE`; rounded to two significant digits, the same on every CPU.
    """
    if errors == equations:
        return 1.0
    return float(f"{betaincinv(errors + 1, equations - errors, CONFIDENCE):.2g}")
