"""The grammar accepts exactly its domain and names the reason of every rejection."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.errors import InvalidEquationError
from arithmetic.grammar import OPERATIONS, Equation, Grammar, count_digits, first_number, solve

GRAMMAR = Grammar(("+", "-"), 999)
OPERANDS = st.integers(0, 999)


@given(OPERANDS, st.sampled_from("+-"), OPERANDS, st.integers(0, 3), st.integers(0, 3))
def test_parse_reads_what_an_equation_prints_and_leading_zeros(a, operation, b, zeros_a, zeros_b):
    equation = Equation(a, operation, b)
    assert GRAMMAR.parse(str(equation)) == equation
    assert GRAMMAR.parse(f"{a:0{zeros_a}}{operation}{b:0{zeros_b}}=") == equation


@given(st.text(max_size=12) | st.text(alphabet="019+-*/= ", max_size=9))
def test_parse_accepts_nothing_else(text):
    if text.isascii() and re.fullmatch(r"[0-9]{1,3}[+-][0-9]{1,3}=", text):
        GRAMMAR.parse(text)
    else:
        with pytest.raises(InvalidEquationError):
            GRAMMAR.parse(text)


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("", "empty", "empty"),
        ("٣+٤=", "unknown_character", "'٣' at position 1"),
        ("１+１=", "unknown_character", "'１'"),
        ("1 + 1=", "unknown_character", "' ' at position 2"),
        ("1+1=\n", "unknown_character", r"'\n' at position 5"),
        ("\x00", "unknown_character", "position 1"),
        ("1+1", "no_equals_sign", "does not end in '='"),
        ("9" * 5000, "no_equals_sign", "does not end in '='"),
        ("+1=", "malformed", "two numbers"),
        ("1+=", "malformed", "two numbers"),
        ("1+1+1=", "malformed", "two numbers"),
        ("=", "malformed", "two numbers"),
        ("1*1=", "unknown_operation", "'*'"),
        ("1000+1=", "out_of_range", "'1000' has more than 3 digits"),
        ("0001+1=", "out_of_range", "more than 3 digits"),
        ("9" * 5000 + "+1=", "out_of_range", "more than 3 digits"),
        ("1+501=", "out_of_range", "501 is too large"),
        ("7/0=", "division_by_zero", "7/0 is a division by zero"),
    ],
)
def test_rejection_names_reason_value_and_fix(text, code, part):
    operations = ("+", "-", "/") if "/" in text else ("+", "-")
    with pytest.raises(InvalidEquationError) as error:
        Grammar(operations, 500).parse(text)
    assert error.value.code == code
    assert part in error.value.message
    assert error.value.hint
    assert len(error.value.message) < 200  # whatever was sent


@given(OPERANDS, OPERANDS)
def test_solve_is_exact(a, b):
    assert solve(Equation(a, "+", b)) == str(a + b)
    assert solve(Equation(a, "-", b)) == str(a - b)
    assert solve(Equation(a, "*", b)) == str(a * b)
    if b:
        assert Grammar(("/",), 999).parse(f"{a}/{b}=") == Equation(a, "/", b)
        assert solve(Equation(a, "/", b)) == f"{a // b}r{a % b}"
        assert first_number(f"{a // b}r{a % b}") == a // b
    assert first_number(str(a - b)) == a - b


@pytest.mark.parametrize("operation", OPERATIONS)
def test_domain_lists_every_equation_once(operation):
    grammar = Grammar((operation,), 99)
    a, b = grammar.equations(operation)
    smallest = OPERATIONS[operation].smallest_operand_2
    assert len(a) == grammar.count(operation) == grammar.size == 100 * (100 - smallest)
    assert grammar.index(operation, a, b).tolist() == list(range(len(a)))
    assert (a.min(), a.max(), b.min(), b.max()) == (0, 99, smallest, 99)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("largest", [1, 9, 37])
def test_answer_range_is_that_of_all_answers(operation, largest):
    grammar = Grammar((operation,), largest)
    numbers = OPERATIONS[operation].compute(*grammar.equations(operation))[0]
    assert grammar.answer_range(operation) == (numbers.min(), numbers.max())


def test_large_domains_are_not_listed():
    assert Grammar(("+", "-", "*", "/"), 999).is_listed
    assert not Grammar(("+",), 999_999).is_listed


def test_digits_are_counted_without_sign():
    numbers = np.array([0, 9, 10, -999, 1000, 998_001])
    assert count_digits(numbers).tolist() == [1, 1, 2, 3, 4, 6]
