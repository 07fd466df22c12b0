"""Which equations of a domain are certified: all of them, or of a very large one a sample.

A domain of up to 10 million equations is listed. Of a larger one are certified

    edge cases    every pair of edge numbers (0, the largest operand, d * 10^k, 10^k - 1, 10^k + 1,
                  repeated digits); equal and neighbouring operands; of + and -, chains of carries
                  or borrows of every length from every place, with random digits around them
    random        uniformly drawn of all the others, whose error rate they bound
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from arithmetic.grammar import OPERATIONS, Grammar
from stages.certify import Equations

CHAIN_VARIANTS = 50  # random surroundings of each chain
RANDOM_EQUALS = 1_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Chosen:
    """The equations of one operation that are certified.

    Attributes:
        equations: distinct ones.
        edges: how many of them, the first, are edge cases; 0 where all there are were chosen.
    """

    equations: Equations
    edges: int


def chosen(grammar: Grammar, operation: str, sampled: int, rng: np.random.Generator) -> Chosen:
    """Every equation of an operation, or edge cases and `sampled` random ones."""
    if grammar.listed:
        return Chosen(Equations(operation, *grammar.equations(operation)), 0)
    edges = _distinct(grammar, operation, *edge_cases(grammar, operation, rng))
    a = rng.integers(0, grammar.max_operand + 1, sampled)
    b = rng.integers(OPERATIONS[operation].smallest_operand_2, grammar.max_operand + 1, sampled)
    random = _distinct(grammar, operation, a, b)
    new = ~np.isin(grammar.index(operation, *random), grammar.index(operation, *edges))
    a, b = (np.concatenate([edge, drawn[new]]) for edge, drawn in zip(edges, random, strict=True))
    return Chosen(Equations(operation, a, b), len(edges[0]))


def edge_numbers(grammar: Grammar) -> np.ndarray:
    """Operands at which something changes, ascending: [N] int64."""
    powers = [10**k for k in range(grammar.digits)]
    numbers = {0, grammar.max_operand, grammar.max_operand - 1}
    for power in powers:
        numbers |= {power - 1, power + 1} | {digit * power for digit in range(1, 10)}
        numbers |= {digit * (10 * power - 1) // 9 for digit in range(1, 10)}
    return np.array(sorted(n for n in numbers if 0 <= n <= grammar.max_operand), np.int64)


def edge_cases(
    grammar: Grammar, operation: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The documented list, [N] and [N]; repeats and pairs outside the domain are left in it."""
    numbers = edge_numbers(grammar)
    first, second = (axis.ravel() for axis in np.meshgrid(numbers, numbers, indexing="ij"))
    some = np.concatenate([numbers, rng.integers(0, grammar.max_operand + 1, RANDOM_EQUALS)])
    firsts, seconds = [first, some, some, some + 1], [second, some, some + 1, some]
    if operation in "+-":
        for a, b in chains(grammar.digits, operation, rng):
            firsts.append(a)
            seconds.append(b)
    return np.concatenate(firsts), np.concatenate(seconds)


def chains(
    digits: int, operation: str, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A carry (borrow) that is made at one place and runs on through `length` more, for every
    place and length: pairs of operands [CHAIN_VARIANTS] each."""
    powers = 10 ** np.arange(digits, dtype=np.int64)
    found = []
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
            found.append(((a * powers).sum(1), (b * powers).sum(1)))
    return found


def error_rate_bound(errors: int, equations: int) -> float:
    """With `CONFIDENCE`, a random equation's probability of error is at most this (Clopper and
    Pearson 1934, one-sided); two significant digits, so that it is the same on every CPU."""
    if errors == equations:
        return 1.0
    return float(f"{betaincinv(errors + 1, equations - errors, CONFIDENCE):.2g}")


def _distinct(
    grammar: Grammar, operation: str, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Those inside the domain, each once, ascending."""
    inside = (a <= grammar.max_operand) & (b <= grammar.max_operand)
    inside &= b >= OPERATIONS[operation].smallest_operand_2
    a, b = a[inside], b[inside]
    _, first = np.unique(grammar.index(operation, a, b), return_index=True)
    return a[first], b[first]
