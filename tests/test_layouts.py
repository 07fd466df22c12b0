"""The format: what is written can be read back, for every equation, at every size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic import layouts
from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from arithmetic.tokenizer import CHARACTERS, END


def written(text: str) -> str:
    equation = Grammar(tuple(OPERATIONS), 999).parse(text)
    a, b = np.array([equation.operand_1]), np.array([equation.operand_2])
    row = layouts.sequences(equation.operation, a, b, 3)[0]
    return "".join((CHARACTERS + "$")[token] for token in row)


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("7-12=", "700-210=" + "051919" + "00" + "-500" + "$"),
        ("951+11=", "159+110=" + "020609" + "2690" + "$"),
        ("999+999=", "999+999=" + "181919" + "8991" + "$"),
        ("0-0=", "000-000=" + "000000" + "11" + "+000" + "$"),
        # Rows of digit products as tens and ones, then the running sum of the rows.
        ("12*34=", "210*430=080400 060300 000000 1004000 0400000 804000$"),
        # 2b 4b 8b; the first digit and its remainder; two digits by trials with 8b 4b 2b 1b.
        (
            "7/2=",
            "700/200=400 800 610 0 0 1100 1100 1100 1100 011700 111700 000300 000100 300 100$",
        ),
    ],
)
def test_worked_examples_of_the_docstring(text, sequence):
    assert written(text) == sequence.replace(" ", "")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_two_digit_equation_reads_back_exactly(operation):
    grammar = Grammar((operation,), 99)
    a, b = grammar.equations(operation)
    rows = layouts.sequences(operation, a, b, grammar.digits)
    prompt = layouts.prompt_length(grammar.digits)
    assert (rows[:, :prompt] == layouts.prompts(operation, a, b, grammar.digits)).all()
    for x, y, row in zip(a.tolist(), b.tolist(), rows, strict=True):
        answer = layouts.read_answer(operation, row[prompt:], grammar.digits)
        assert answer.text == solve(Equation(x, operation, y))
        assert answer.is_integer
        assert answer.ended


@given(st.data(), st.sampled_from(sorted(OPERATIONS)), st.integers(1, 6))
def test_any_size_reads_back(data, operation, digits):
    smallest = OPERATIONS[operation].smallest_operand_2
    a = data.draw(st.integers(0, 10**digits - 1))
    b = data.draw(st.integers(smallest, 10**digits - 1))
    row = layouts.sequences(operation, np.array([a]), np.array([b]), digits)[0]
    generated = row[layouts.prompt_length(digits) :]
    answer = layouts.read_answer(operation, generated, digits)
    assert answer.text == solve(Equation(a, operation, b))
    assert len(generated) == layouts.lengths(operation, digits).generated


@given(st.data(), st.sampled_from(sorted(OPERATIONS)))
def test_whatever_a_model_writes_is_read_and_judged(data, operation):
    """Nonsense is measured as a hallucination or an infinite generation, never a crash."""
    length = layouts.lengths(operation, 3).generated
    tokens = st.lists(st.integers(0, END), min_size=length, max_size=length)
    generated = data.draw(tokens)
    answer = layouts.read_answer(operation, generated, 3)
    assert answer.ended == (generated[-1] == END)
    if answer.is_integer:
        assert all(part.lstrip("-").isdecimal() for part in answer.text.split("r"))


@pytest.mark.parametrize("nonsense", ["+00 0", "1=30", "12--", "?110"])
def test_an_answer_that_is_no_integer_is_a_hallucination(nonsense):
    ids = [CHARACTERS.index(c) if c in CHARACTERS else END for c in nonsense]
    answer = layouts.read_answer("+", [*[0] * 6, *ids[:4], END], 3)
    assert not answer.is_integer


def test_a_negative_zero_is_not_zero():
    """`-0` must count as a wrong answer, so it must not be tidied away."""
    ids = [*[0] * 8, CHARACTERS.index("-"), 0, 0, 0, END]
    assert layouts.read_answer("-", ids, 3).text == "-0"


def test_no_token_is_told_what_comes_after_it():
    """What a token looks at stands before it: the model could not know it otherwise."""
    for operation in OPERATIONS:
        page, _ = layouts.sheet(operation, np.array([700]), np.array([12]), 3)
        for index, sources in enumerate(page.looks_at):
            assert all(source < index for source in sources)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_token_is_a_function_of_what_it_looks_at(operation):
    """If two equations agree on what a token looks at, they agree on the token."""
    a, b = Grammar((operation,), 99).equations(operation)
    page, _ = layouts.sheet(operation, a, b, 2)
    for index, sources in enumerate(page.looks_at):
        if sources:
            cell = np.zeros(len(a), np.int64)
            for source in sources:
                cell = cell * 17 + page[source]
            pairs = np.unique(np.stack([cell, page[index]]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1], page.names[index]
