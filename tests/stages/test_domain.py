"""What is certified of a domain too large to list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.grammar import Grammar
from stages.domain import chains, chosen, edge_cases, edge_numbers, error_rate_bound


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def carries(a: int, b: int, operation: str, digits: int) -> list[int]:
    """The carry (borrow) out of each place, by the pupil's method."""
    found, carry = [], 0
    for place in range(digits):
        x, y = a // 10**place % 10, b // 10**place % 10
        carry = int(x + y + carry > 9) if operation == "+" else int(x - y - carry < 0)
        found.append(carry)
    return found


@pytest.mark.parametrize("operation", ["+", "-"])
def test_chains_of_every_length_start_at_every_place(operation):
    digits = 5
    wanted = [(start, length) for start in range(digits) for length in range(digits - start)]
    for (start, length), (a, b) in zip(wanted, chains(digits, operation, rng()), strict=True):
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            assert all(carries(x, y, operation, digits)[start : start + length + 1])


def test_edge_numbers_are_the_documented_ones():
    found = set(edge_numbers(Grammar(("+",), 1234)).tolist())
    assert {0, 1, 9, 10, 11, 90, 99, 100, 101, 777, 999, 1000, 1001, 1111, 1233, 1234} <= found
    assert max(found) == 1234


@given(
    operation=st.sampled_from("+-*/"),
    max_operand=st.integers(3_500, 9_999_999),
    seed=st.integers(0),
)
def test_a_sample_is_distinct_and_inside_the_domain(operation, max_operand, seed):
    grammar = Grammar((operation,), max_operand)
    found = chosen(grammar, operation, 200, np.random.default_rng(seed))
    a, b = found.equations.operand_1, found.equations.operand_2
    assert 0 <= a.min() <= a.max() <= max_operand
    assert int(operation == "/") <= b.min() <= b.max() <= max_operand
    assert len(np.unique(grammar.index(operation, a, b))) == len(a)
    assert found.edges < len(a) <= found.edges + 200


def test_every_edge_case_is_in_the_sample():
    grammar = Grammar(("-",), 999_999)
    a, b = edge_cases(grammar, "-", np.random.default_rng(7))
    inside = (a <= 999_999) & (b <= 999_999)
    found = chosen(grammar, "-", 50, np.random.default_rng(7))
    first = slice(0, found.edges)
    had = grammar.index("-", found.equations.operand_1[first], found.equations.operand_2[first])
    assert set(grammar.index("-", a[inside], b[inside]).tolist()) == set(had.tolist())


def test_a_small_domain_is_listed_whole():
    grammar = Grammar(("/",), 99)
    found = chosen(grammar, "/", 5, rng())
    assert (len(found.equations), found.edges) == (99 * 100, 0)


def test_the_bound_is_that_of_clopper_and_pearson():
    """No error in n: 1 - 0.05^(1/n), the "rule of three"."""
    assert error_rate_bound(0, 1_000_000) == 3.0e-6
    assert error_rate_bound(0, 100) == 0.03
    assert error_rate_bound(5, 5) == 1.0
    assert error_rate_bound(10, 1_000_000) > 10 / 1_000_000
