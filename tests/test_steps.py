"""The steps shown are the model's own characters, in the order a pupil writes them."""

import numpy as np
import pytest

from arithmetic import layouts
from arithmetic.grammar import OPERATIONS, Equation, Grammar
from arithmetic.steps import explain

GRAMMAR = Grammar(tuple(OPERATIONS), 999)


def scratch_of(equation: Equation) -> str:
    """What a model that makes no mistake writes."""
    a, b = np.array([equation.operand_1]), np.array([equation.operand_2])
    generated = layouts.sequences(equation.operation, a, b, 3)[0, layouts.prompt_length(3) :]
    return layouts.read_answer(equation.operation, generated.tolist(), 3).scratch


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "951+79=",
            [
                "ones: 1 + 9 = 0, carry 1",
                "tens: 5 + 7 + 1 = 3, carry 1",
                "hundreds: 9 + 0 + 1 = 0, carry 1",
            ],
        ),
        (
            "7-12=",
            [
                "ones: 7 - 2 = 5, borrow 0",
                "tens: 0 - 1 - 0 = 9, borrow 1",
                "hundreds: 0 - 0 - 1 = 9, borrow 1",
                "a borrow is left over: the result is negative, so take the complement",
            ],
        ),
        (
            "12*34=",
            [
                "12 x 4 ones = 48",
                "12 x 3 tens = 360",
                "12 x 0 hundreds = 0",
                "48 + 360 = 408",
                "408 + 0 = 408",
            ],
        ),
        (
            "87/4=",
            [
                "4: 2 times is 8, 4 times is 16, 8 times is 32",
                "hundreds: 4 fits 0 times into 0, 0 remains",
                "tens: bring down 8, which makes 8",
                "  8 times (32) does not fit",
                "  4 times (16) does not fit",
                "  2 times (8) fits, 0 remains",
                "  1 times (4) does not fit",
                "ones: bring down 7, which makes 7",
                "  8 times (32) does not fit",
                "  4 times (16) does not fit",
                "  2 times (8) does not fit",
                "  1 times (4) fits, 3 remains",
            ],
        ),
    ],
)
def test_steps_read_like_written_arithmetic(text, lines):
    equation = GRAMMAR.parse(text)
    assert explain(equation, scratch_of(equation), 3) == lines


@pytest.mark.parametrize("text", ["951+79=", "7-12=", "12*34=", "87/4=", "999/999="])
def test_whatever_the_scratch_says_is_shown_and_not_corrected(text):
    equation = GRAMMAR.parse(text)
    scratch = scratch_of(equation)
    wrong = "".join("7" if character != "7" else "3" for character in scratch)
    assert explain(equation, wrong, 3) != explain(equation, scratch, 3)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_largest_domain_has_names_for_its_places(operation):
    """params.yaml allows operands of nine digits."""
    digits = 9
    equation = Equation(987654321, operation, 123456789)
    a, b = np.array([equation.operand_1]), np.array([equation.operand_2])
    generated = layouts.sequences(operation, a, b, digits)[0, layouts.prompt_length(digits) :]
    scratch = layouts.read_answer(operation, generated.tolist(), digits).scratch
    assert any("hundred millions" in line for line in explain(equation, scratch, digits))
