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
        ("7-12=", "700-210=" + "0519-9" + "500-" + "$"),
        ("951+11=", "159+110=" + "020609" + "2690" + "$"),
        ("999+999=", "999+999=" + "181919" + "8991" + "$"),
        ("0-0=", "000-000=" + "000000" + "0000" + "$"),
    ],
)
def test_worked_examples_of_the_docstring(text, sequence):
    assert written(text) == sequence


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
    operands = st.integers(0, 10**digits - 1)
    a, b = data.draw(operands), data.draw(operands)
    row = layouts.sequences(operation, np.array([a]), np.array([b]), digits)[0]
    generated = row[layouts.prompt_length(digits) :]
    answer = layouts.read_answer(operation, generated, digits)
    assert answer.text == solve(Equation(a, operation, b))
    assert len(generated) == layouts.lengths(operation, digits).generated


@given(st.lists(st.integers(0, END), min_size=11, max_size=11), st.sampled_from("+-"))
def test_whatever_a_model_writes_is_read_and_judged(generated, operation):
    """Nonsense is measured as a hallucination or an infinite generation, never a crash."""
    answer = layouts.read_answer(operation, generated, 3)
    assert answer.ended == (generated[-1] == END)
    if answer.is_integer:
        int(answer.text)


@pytest.mark.parametrize("nonsense", ["+00 0", "1=30", "12--", "?110"])
def test_an_answer_that_is_no_integer_is_a_hallucination(nonsense):
    ids = [CHARACTERS.index(c) if c in CHARACTERS else END for c in nonsense]
    answer = layouts.read_answer("+", [*[0] * 6, *ids[:4], END], 3)
    assert not answer.is_integer


def test_a_negative_zero_is_not_zero():
    """`-0` must count as a wrong answer, so it must not be tidied away."""
    ids = [0, 0, 0, 0, 0, 0, 0, 0, 0, CHARACTERS.index("-"), END]
    assert layouts.read_answer("-", ids, 3).text == "-0"
