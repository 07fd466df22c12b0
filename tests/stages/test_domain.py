"""The sample of a domain too large to list: edge cases, chains of carries, random equations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.grammar import Grammar
from stages.domain import (
    bound_error_rate,
    carry_chains,
    choose_equations,
    edge_cases,
    edge_numbers,
    longest_carry_chain,
)


def carries(a: int, b: int, operation: str, digits: int) -> list[int]:
    """Return the carry (borrow) out of each place by written arithmetic."""
    result, carry = [], 0
    for place in range(digits):
        x, y = a // 10**place % 10, b // 10**place % 10
        carry = int(x + y + carry > 9) if operation == "+" else int(x - y - carry < 0)
        result.append(carry)
    return result


@pytest.mark.parametrize("operation", ["+", "-"])
def test_chains_of_every_length_start_at_every_place(operation):
    digits = 5
    places = [(start, length) for start in range(digits) for length in range(digits - start)]
    chains = carry_chains(digits, operation, np.random.default_rng(1))
    for (start, length), (a, b) in zip(places, chains, strict=True):
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            assert all(carries(x, y, operation, digits)[start : start + length + 1])


@given(st.sampled_from("+-"), st.integers(0, 99_999), st.integers(0, 99_999))
def test_longest_carry_chain_is_that_of_written_arithmetic(operation, a, b):
    chains = "".join(map(str, carries(a, b, operation, 5))).split("0")
    (longest,) = longest_carry_chain(operation, np.array([a]), np.array([b]), 5)
    assert longest == max(map(len, chains))


def test_edge_numbers_are_the_documented_ones():
    numbers = set(edge_numbers(Grammar(("+",), 1234)).tolist())
    assert {0, 1, 9, 10, 11, 90, 99, 100, 101, 777, 999, 1000, 1001, 1111, 1233, 1234} <= numbers
    assert max(numbers) == 1234


@given(st.sampled_from("+-*/"), st.integers(3_500, 9_999_999), st.integers(0))
def test_sample_is_distinct_and_inside_the_domain(operation, max_operand, seed):
    grammar = Grammar((operation,), max_operand)
    (a, b), edges = choose_equations(grammar, operation, 200, np.random.default_rng(seed))
    assert 0 <= a.min() <= a.max() <= max_operand
    assert int(operation == "/") <= b.min() <= b.max() <= max_operand
    assert len(np.unique(grammar.index(operation, a, b))) == len(a)
    assert edges < len(a) <= edges + 200


def test_every_edge_case_is_in_the_sample_and_a_small_domain_is_listed_whole():
    grammar = Grammar(("-",), 999_999)
    a, b = edge_cases(grammar, "-", np.random.default_rng(7))
    inside = (a <= 999_999) & (b <= 999_999)
    (x, y), edges = choose_equations(grammar, "-", 50, np.random.default_rng(7))
    sampled = grammar.index("-", x[:edges], y[:edges])
    assert set(grammar.index("-", a[inside], b[inside]).tolist()) == set(sampled.tolist())
    (a, _), edges = choose_equations(Grammar(("/",), 99), "/", 5, np.random.default_rng(1))
    assert (len(a), edges) == (99 * 100, 0)


def test_bound_is_that_of_clopper_and_pearson():
    """Without errors in n equations: 1 - 0.05^(1/n), the "rule of three"."""
    assert bound_error_rate(0, 1_000_000) == 3.0e-6
    assert bound_error_rate(0, 100) == 0.03
    assert bound_error_rate(5, 5) == 1.0
    assert bound_error_rate(10, 1_000_000) > 10 / 1_000_000
