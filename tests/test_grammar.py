"""The grammar accepts exactly the domain, and says in a sentence why it refuses the rest."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.errors import InvalidEquation
from arithmetic.grammar import Equation, Grammar, render, solve

GRAMMAR = Grammar(("+", "-"), 999)
OPERANDS = st.integers(0, 999)


@given(OPERANDS, st.sampled_from("+-"), OPERANDS, st.integers(0, 2), st.integers(0, 2))
def test_every_equation_parses_with_leading_zeros(a, operation, b, zeros_a, zeros_b):
    text = f"{str(a).zfill(min(3, len(str(a)) + zeros_a))}{operation}{str(b).zfill(zeros_b)}="
    assert GRAMMAR.parse(text) == Equation(a, operation, b)


@given(st.text(max_size=12) | st.text(alphabet="019+-*/= ", max_size=9))
def test_no_text_is_accepted_but_the_grammar_s_own(text):
    if text.isascii() and re.fullmatch(r"[0-9]{1,3}[+-][0-9]{1,3}=", text):
        GRAMMAR.parse(text)
    else:
        with pytest.raises(InvalidEquation):
            GRAMMAR.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("٣+٤=", "'٣'"),
        ("１+１=", "'１'"),
        ("1 + 1=", "' '"),
        (" 1+1=", "position 1"),
        ("1+1=\n", r"'\n'"),
        ("", "empty"),
        ("1000+1=", "more than 3 digits"),
        ("0001+1=", "more than 3 digits"),
        ("1+1", "does not end in '='"),
        ("1*1=", "'*'"),
        ("+1=", "two numbers"),
        ("1+=", "two numbers"),
        ("1+1+1=", "two numbers"),
        ("1+1==", "two numbers"),
        ("=", "two numbers"),
        ("1-5=$", "'$'"),
        ("\x00", "position 1"),
        ("9" * 5000, "does not end"),
        ("9" * 5000 + "+1=", "more than 3 digits"),
    ],
)
def test_refusals_name_what_is_wrong(text, says):
    with pytest.raises(InvalidEquation) as refusal:
        GRAMMAR.parse(text)
    assert says in str(refusal.value)
    assert len(str(refusal.value)) < 200, "a message stays a sentence, whatever was sent"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("1 + 1=", "unknown_character"),
        ("1+1", "no_equals_sign"),
        ("1+1+1=", "malformed"),
        ("1^1=", "unknown_operation"),
        ("0001+1=", "out_of_range"),
        ("501+1=", "out_of_range"),
        ("7/0=", "division_by_zero"),
    ],
)
def test_each_kind_of_refusal_has_a_word_to_count_it_by(text, reason):
    with pytest.raises(InvalidEquation) as refusal:
        Grammar(("+", "/"), 500).parse(text)
    assert refusal.value.reason == reason


def test_division_by_zero_is_refused_with_its_reason():
    with pytest.raises(InvalidEquation, match="division by zero"):
        Grammar(("/",), 999).parse("7/0=")
    assert Grammar(("/",), 999).parse("0/7=") == Equation(0, "/", 7)


def test_an_operand_above_a_bound_that_is_no_power_of_ten_is_refused():
    with pytest.raises(InvalidEquation, match="too large; operands go from 0 to 500"):
        Grammar(("+",), 500).parse("501+1=")


@given(OPERANDS, OPERANDS)
def test_solve_is_exact(a, b):
    assert solve(Equation(a, "+", b)) == str(a + b)
    assert solve(Equation(a, "-", b)) == str(a - b)
    assert solve(Equation(a, "*", b)) == str(a * b)
    if b:
        assert solve(Equation(a, "/", b)) == f"{a // b}r{a % b}"


def test_the_domain_is_enumerated_once():
    a, b = Grammar(("-",), 99).equations("-")
    assert len(a) == 10_000
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == 10_000
    assert (a.min(), a.max(), b.min(), b.max()) == (0, 99, 0, 99)


@pytest.mark.parametrize("operation", ["+", "/"])
def test_every_equation_knows_its_place(operation):
    grammar = Grammar((operation,), 99)
    places = grammar.index(operation, *grammar.equations(operation))
    assert places.tolist() == list(range(grammar.count(operation)))


def test_answers_of_two_numbers_have_one_form():
    assert render((3, 1)) == "3r1"
