"""Sequence formats: what is encoded is parsed back, for every equation and every size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic import formats
from arithmetic.formats import Answer, classify, encode_prompts, encode_sequences, parse_answer
from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from arithmetic.tokenizer import CHARACTERS, END, IDS

GRAMMAR = Grammar(tuple(OPERATIONS), 999)


def encode_text(text: str) -> str:
    equation = GRAMMAR.parse(text)
    a, b = np.array([equation.operand_1]), np.array([equation.operand_2])
    row = encode_sequences(equation.operation, a, b, 3)[0]
    return "".join((CHARACTERS + "$")[token] for token in row)


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("7-12=", "700-210=051919 00 -5000 $"),
        ("951+11=", "159+110=020609 00 +2690 $"),
        ("999+999=", "999+999=181919 00 +8991 $"),
        ("0-0=", "000-000=000000 11 +0000 $"),
        # Rows of digit products as tens and ones, then the running sum of the rows.
        ("12*34=", "210*430=080400 060300 000000 1004000 0400000 804000$"),
        # 2b 4b 8b; the first digit and its remainder; two digits by trials with 8b 4b 2b 1b.
        (
            "7/2=",
            "700/200=400 800 610 0 0 1100 1100 1100 1100 011700 111700 000300 000100 300 100$",
        ),
    ],
)
def test_worked_examples(text, sequence):
    assert encode_text(text) == sequence.replace(" ", "")


def test_operations_with_equal_sequences_share_a_format():
    assert formats.get_format("+") is formats.get_format("-")
    assert [fmt.name for fmt in formats.get_formats("-*+/")] == [
        "add_subtract",
        "multiply",
        "divide",
    ]
    assert sorted(o for fmt in formats.FORMATS for o in fmt.operations) == sorted(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_two_digit_equation_is_parsed_back(operation):
    grammar = Grammar((operation,), 99)
    a, b = grammar.equations(operation)
    sequences = encode_sequences(operation, a, b, 2)
    prompt = formats.get_format(operation).lengths(2).prompt
    assert (sequences[:, :prompt] == encode_prompts(operation, a, b, 2)).all()
    for x, y, row in zip(a.tolist(), b.tolist(), sequences.tolist(), strict=True):
        answer = parse_answer(operation, row[prompt:], 2)
        assert answer[:3] == (solve(Equation(x, operation, y)), True, True)


@given(st.data(), st.sampled_from(sorted(OPERATIONS)), st.integers(1, 6))
def test_equations_of_any_size_are_parsed_back(data, operation, digits):
    smallest = OPERATIONS[operation].smallest_operand_2
    a = data.draw(st.integers(0, 10**digits - 1))
    b = data.draw(st.integers(smallest, 10**digits - 1))
    lengths = formats.get_format(operation).lengths(digits)
    generated = encode_sequences(operation, np.array([a]), np.array([b]), digits)[0, lengths[0] :]
    assert len(generated) == lengths.generated
    answer = parse_answer(operation, generated.tolist(), digits)
    assert answer.text == solve(Equation(a, operation, b))
    assert len(answer.scratchpad) == lengths.scratchpad


def test_prompts_of_mixed_operations_are_encoded_by_row():
    a, b = np.array([7, 951]), np.array([12, 11])
    mixed = encode_prompts(np.array([IDS["-"], IDS["+"]]), a, b, 3)
    assert mixed[0].tolist() == encode_prompts("-", a[:1], b[:1], 3)[0].tolist()
    assert mixed[1].tolist() == encode_prompts("+", a[1:], b[1:], 3)[0].tolist()


@given(st.data(), st.sampled_from(sorted(OPERATIONS)))
def test_any_generated_tokens_are_parsed_and_classified(data, operation):
    """Nonsense is a hallucination or an infinite generation, never an exception."""
    length = formats.get_format(operation).lengths(3).generated
    generated = data.draw(st.lists(st.integers(0, END), min_size=length, max_size=length))
    answer = parse_answer(operation, generated, 3)
    assert answer.ended == (generated[-1] == END)
    if answer.is_integer:
        assert all(part.lstrip("-").isdecimal() for part in answer.text.split("r"))
    outcome = classify(answer, "1", operation, GRAMMAR)
    assert outcome.wrong or answer.text == "1"


@pytest.mark.parametrize("nonsense", ["+00=0", "1=300", "+2--0", "+?110", "00000"])
def test_answer_without_sign_or_digits_is_not_an_integer(nonsense):
    ids = [IDS.get(character, END) for character in nonsense]
    answer = parse_answer("+", [*[0] * 8, *ids, END], 3)
    assert (answer.text, answer.is_integer) == (nonsense, False)


def test_negative_zero_is_not_corrected_to_zero():
    answer = parse_answer("-", [*[0] * 8, IDS["-"], 0, 0, 0, 0, END], 3)
    assert answer.text == "-0"
    assert classify(answer, "0", "-", GRAMMAR).wrong


@pytest.mark.parametrize(
    ("operation", "answer", "expected", "kinds"),
    [
        ("+", Answer("2", True, True, ""), "2", set()),
        ("+", Answer("3", True, True, ""), "2", {"wrong"}),
        ("+", Answer("=0", False, True, ""), "2", {"wrong", "hallucination"}),
        ("+", Answer("2", True, False, ""), "2", {"wrong", "infinite_generation"}),
        ("+", Answer("1999", True, True, ""), "2", {"wrong", "out_of_range"}),
        ("-", Answer("-1000", True, True, ""), "2", {"wrong", "out_of_range"}),
        ("/", Answer("21r3", True, True, ""), "21r3", set()),
        ("/", Answer("21r9", True, True, ""), "21r3", {"wrong"}),
        ("/", Answer("1000r0", True, True, ""), "21r3", {"wrong", "out_of_range"}),
    ],
)
def test_classify_counts_each_kind_of_failure_as_itself(operation, answer, expected, kinds):
    outcome = classify(answer, expected, operation, GRAMMAR)
    assert {name for name in formats.Outcome._fields if getattr(outcome, name)} == kinds
