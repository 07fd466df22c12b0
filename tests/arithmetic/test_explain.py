"""The explanation shows the model's own characters, in the order of written arithmetic."""

import textwrap

import numpy as np
import pytest

from arithmetic.explain import explain
from arithmetic.formats import encode_sequences, parse_answer
from arithmetic.grammar import OPERATIONS, Equation, Grammar

GRAMMAR = Grammar(tuple(OPERATIONS), 999)


def reference_scratchpad(equation: Equation, digits: int = 3) -> str:
    a, b = np.array([equation.operand_1]), np.array([equation.operand_2])
    generated = encode_sequences(equation.operation, a, b, digits)[0, 2 * digits + 2 :]
    return parse_answer(equation.operation, generated.tolist(), digits).scratchpad


LINES = {
    "951+79=": """
        ones: 1 + 9 = 0, carry 1
        tens: 5 + 7 + 1 = 3, carry 1
        hundreds: 9 + 0 + 1 = 0, carry 1""",
    "7-12=": """
        ones: 7 - 2 = 5, borrow 0
        tens: 0 - 1 - 0 = 9, borrow 1
        hundreds: 0 - 0 - 1 = 9, borrow 1
        a borrow is left over: the result is negative, so take the complement""",
    "12*34=": """
        12 x 4 ones = 48
        12 x 3 tens = 360
        12 x 0 hundreds = 0
        48 + 360 = 408
        408 + 0 = 408""",
    "87/4=": """
        4: 2 times is 8, 4 times is 16, 8 times is 32
        hundreds: 4 fits 0 times into 0, 0 remains
        tens: bring down 8, which makes 8
          8 times (32) does not fit
          4 times (16) does not fit
          2 times (8) fits, 0 remains
          1 times (4) does not fit
        ones: bring down 7, which makes 7
          8 times (32) does not fit
          4 times (16) does not fit
          2 times (8) does not fit
          1 times (4) fits, 3 remains""",
}


@pytest.mark.parametrize("text", LINES)
def test_lines_read_like_written_arithmetic_and_follow_a_wrong_scratchpad(text):
    equation = GRAMMAR.parse(text)
    scratchpad = reference_scratchpad(equation)
    lines = textwrap.dedent(LINES[text]).strip().splitlines()
    assert explain(equation, scratchpad, 3) == lines
    wrong = "".join("7" if character != "7" else "3" for character in scratchpad)
    assert explain(equation, wrong, 3) != lines


@pytest.mark.parametrize("operation", OPERATIONS)
def test_largest_domain_has_names_for_its_places(operation):
    """params.yaml allows operands of nine digits."""
    equation = Equation(987654321, operation, 123456789)
    lines = explain(equation, reference_scratchpad(equation, 9), 9)
    assert any("hundred millions" in line for line in lines)
