"""Explain a model's scratchpad as readable lines.

Only the characters that the model generated are shown; nothing is computed, so a wrong scratchpad
stays wrong.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from arithmetic import formats
from arithmetic.grammar import Equation

# For as many digits as `generate.max_operand` may have.
PLACES = (
    "ones",
    "tens",
    "hundreds",
    "thousands",
    "ten thousands",
    "hundred thousands",
    "millions",
    "ten millions",
    "hundred millions",
)

# Characters of the scratchpad by the names that `arithmetic.scratchpad` gives them.
Tokens = dict[str, str]


def explain(equation: Equation, scratchpad: str, digits: int) -> list[str]:
    """Return the steps of the scratchpad, a line each.

    Args:
        scratchpad: `Answer.scratchpad` of the model's answer to this equation.
        digits: of an operand in the model's grammar.
    """
    tokens = dict(zip(_names(equation.operation, digits), scratchpad, strict=True))
    a, b = (f"{number:0{digits}d}"[::-1] for number in (equation.operand_1, equation.operand_2))
    return _EXPLANATIONS[equation.operation](tokens, a, b)


@lru_cache
def _names(operation: str, digits: int) -> Sequence[str]:
    columns = formats.build_columns(operation, np.array([1]), np.array([1]), digits)
    return columns.names[2 * digits + 2 : columns.answer_start]


def _number(characters: Sequence[str]) -> str:
    """Convert digits, least significant first, to a number without leading zeros."""
    return "".join(reversed(characters)).lstrip("0") or "0"


def _add_subtract(operator: str, tokens: Tokens, a: str, b: str) -> list[str]:
    carry_name = "carry" if operator == "+" else "borrow"
    lines, carry = [], ""
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        terms = f"{x} {operator} {y}" + (f" {operator} {carry}" if carry else "")
        carry = tokens[f"carry {i}"]
        lines.append(f"{PLACES[i]}: {terms} = {tokens[f'digit {i}']}, {carry_name} {carry}")
    if operator == "-" and carry != "0":
        lines.append("a borrow is left over: the result is negative, so take the complement")
    return lines


def _multiply(tokens: Tokens, a: str, b: str) -> list[str]:
    n = len(a)
    lines, rows = [], []
    for j, y in enumerate(b):
        row = [tokens[f"row {j} ones {i}"] for i in range(n)] + [tokens[f"row {j} tens {n - 1}"]]
        rows.append(row)
        lines.append(f"{_number(a)} x {y} {PLACES[j]} = {_number(['0'] * j + row)}")
    total = rows[0]
    for j in range(1, n):
        result = total[:j] + [tokens[f"sum {j} digit {i + j}"] for i in range(n + 1)]
        shifted = _number(["0"] * j + rows[j])
        lines.append(f"{_number(total)} + {shifted} = {_number(result)}")
        total = result
    return lines


def _divide(tokens: Tokens, a: str, b: str) -> list[str]:
    n = len(a)
    multiples = {1: _number(b)}
    for factor in (2, 4, 8):
        characters = [tokens[f"{factor}b {i}"] for i in range(n)]
        multiples[factor] = "too much" if ">" in characters else _number(characters)
    doubled = ", ".join(f"{factor} times is {multiples[factor]}" for factor in (2, 4, 8))
    lines = [f"{multiples[1]}: {doubled}"]
    first, remainder = tokens[f"quotient {n - 1}"], [tokens[f"remainder {n - 1}"]]
    lines.append(
        f"{PLACES[n - 1]}: {multiples[1]} fits {first} times into {a[-1]}, "
        f"{_number(remainder)} remains"
    )
    for place in range(n - 2, -1, -1):
        remainder = [a[place], *remainder]
        lines.append(f"{PLACES[place]}: bring down {a[place]}, which makes {_number(remainder)}")
        for factor in (8, 4, 2, 1):
            name = f"place {place} try {factor}"
            size = len(remainder)
            rejected = tokens[f"{name} borrow {size - 1}"] != "0"
            remainder = [tokens[f"{name} digit {i}"] for i in range(size)]
            outcome = "does not fit" if rejected else f"fits, {_number(remainder)} remains"
            lines.append(f"  {factor} times ({multiples[factor]}) {outcome}")
    return lines


_EXPLANATIONS: dict[str, Callable[[Tokens, str, str], list[str]]] = {
    "+": partial(_add_subtract, "+"),
    "-": partial(_add_subtract, "-"),
    "*": _multiply,
    "/": _divide,
}
