"""Parse equations, compute exact answers and enumerate the domain.

An equation is `A op B =` with ASCII digits only and nothing else: no spaces, no sign, no newline.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from arithmetic.errors import InvalidEquationError

Operands = tuple[np.ndarray, np.ndarray]

# A larger domain is sampled: certifying all of it would take many minutes and gigabytes.
LARGEST_LISTED = 10_000_000


@dataclass(frozen=True)
class Operation:
    """Describe how one operator computes.

    Attributes:
        name: the English word.
        compute: integers, or integer arrays of one shape, to the numbers of the answer.
        smallest_operand_2: 1 where the operation is not defined for 0.
    """

    name: str
    compute: Callable[[Any, Any], tuple[Any, ...]]
    smallest_operand_2: int = 0


OPERATIONS: dict[str, Operation] = {
    "+": Operation("addition", lambda a, b: (a + b,)),
    "-": Operation("subtraction", lambda a, b: (a - b,)),
    "*": Operation("multiplication", lambda a, b: (a * b,)),
    # Quotient and remainder, `7/2=` → `3r1`.
    "/": Operation("division", lambda a, b: (a // b, a % b), smallest_operand_2=1),
}


@dataclass(frozen=True)
class Equation:
    """Hold a question with its operands as numbers: `007+1=` and `7+1=` are the same equation."""

    operand_1: int
    operation: str
    operand_2: int

    def __str__(self) -> str:
        return f"{self.operand_1}{self.operation}{self.operand_2}="


def solve(equation: Equation) -> str:
    """Return the exact answer as a user reads it: `962`, `-4`, `3r1`."""
    numbers = OPERATIONS[equation.operation].compute(equation.operand_1, equation.operand_2)
    return "r".join(map(str, numbers))


def first_number(answer: str) -> int:
    """Return the number of an answer; of a division its quotient."""
    return int(answer.split("r")[0])


def count_digits(numbers: np.ndarray) -> np.ndarray:
    """Count the digits of each number without its sign: [N] -> [N]."""
    return np.searchsorted(10 ** np.arange(1, 19), np.abs(numbers), side="right") + 1


@dataclass(frozen=True)
class Grammar:
    """Define which equations exist: the operations, and operands from 0 to `max_operand`."""

    operations: tuple[str, ...]
    max_operand: int

    @property
    def digits(self) -> int:
        """Return the most digits an operand may have (leading zeros included)."""
        return len(str(self.max_operand))

    def parse(self, text: str) -> Equation:
        """Parse an equation; raise InvalidEquationError, which says where and why."""
        match = re.fullmatch(r"([0-9]+)([^0-9])([0-9]+)=", text)
        if match is None:
            raise self._syntax_error(text)
        first, operation, second = match.groups()
        if operation not in self.operations:
            raise InvalidEquationError(
                f"{operation!r} is not an operation of this model",
                f"use one of {' '.join(self.operations)}",
                "unknown_operation",
            )
        limits = f"operands go from 0 to {self.max_operand}"
        for operand in (first, second):
            if len(operand) > self.digits:
                message = f"operand {_shortened(operand)} has more than {self.digits} digits"
                raise InvalidEquationError(message, limits, "out_of_range")
            if int(operand) > self.max_operand:
                message = f"operand {operand} is too large"
                raise InvalidEquationError(message, limits, "out_of_range")
        if int(second) < OPERATIONS[operation].smallest_operand_2:
            raise InvalidEquationError(
                f"{first}{operation}{second} is a division by zero",
                "divide by 1 or more",
                "division_by_zero",
            )
        return Equation(int(first), operation, int(second))

    def count(self, operation: str) -> int:
        """Count the equations of one operation."""
        size = self.max_operand + 1
        return size * (size - OPERATIONS[operation].smallest_operand_2)

    @property
    def size(self) -> int:
        """Count all equations."""
        return sum(self.count(operation) for operation in self.operations)

    @property
    def is_listed(self) -> bool:
        """Return whether the domain is small enough to hold every equation in memory at once."""
        return self.size <= LARGEST_LISTED

    def answer_range(self, operation: str) -> tuple[int, int]:
        """Return the smallest and largest exact (first) number."""
        # Every operation is monotonic in each operand, so the extremes lie in the corners.
        seconds = (OPERATIONS[operation].smallest_operand_2, self.max_operand)
        compute = OPERATIONS[operation].compute
        corners = [compute(a, b)[0] for a in (0, self.max_operand) for b in seconds]
        return min(corners), max(corners)

    def equations(self, operation: str) -> Operands:
        """Return all equations of an operation as two int64 arrays [N]; operand_2 runs fastest."""
        numbers = np.arange(self.max_operand + 1, dtype=np.int64)
        seconds = numbers[OPERATIONS[operation].smallest_operand_2 :]
        first, second = np.meshgrid(numbers, seconds, indexing="ij")
        return first.ravel(), second.ravel()

    def index(self, operation: str, operand_1: np.ndarray, operand_2: np.ndarray) -> np.ndarray:
        """Return the places of equations in `equations`: [N], [N] -> [N]."""
        smallest = OPERATIONS[operation].smallest_operand_2
        return operand_1 * (self.max_operand + 1 - smallest) + operand_2 - smallest

    def contains(self, operation: str, operand_1: np.ndarray, operand_2: np.ndarray) -> np.ndarray:
        """Return which operands form an equation of the domain: [N], [N] -> [N] bool."""
        smallest, largest = OPERATIONS[operation].smallest_operand_2, self.max_operand
        is_inside = (operand_1 >= 0) & (operand_1 <= largest)
        return is_inside & (operand_2 >= smallest) & (operand_2 <= largest)

    def distinct(self, operation: str, operand_1: np.ndarray, operand_2: np.ndarray) -> Operands:
        """Return the equations inside the domain, each once, in the order of `equations`."""
        is_inside = self.contains(operation, operand_1, operand_2)
        a, b = operand_1[is_inside], operand_2[is_inside]
        _, first = np.unique(self.index(operation, a, b), return_index=True)
        return a[first], b[first]

    def _syntax_error(self, text: str) -> InvalidEquationError:
        example, symbols = f"write one like 12{self.operations[0]}7=", " ".join(self.operations)
        if not text:
            return InvalidEquationError("the equation is empty", example, "empty")
        allowed = set("0123456789=") | set(self.operations)
        for position, character in enumerate(text):
            if character not in allowed:
                return InvalidEquationError(
                    f"character {character!r} at position {position + 1} is not allowed",
                    f"use the digits 0-9, one of {symbols} and a final '='",
                    "unknown_character",
                )
        if not text.endswith("="):
            message = f"the equation {_shortened(text)} does not end in '='"
            return InvalidEquationError(message, example, "no_equals_sign")
        return InvalidEquationError(
            f"{_shortened(text)} is not two numbers with one of {symbols} between them "
            "and a final '='",
            example,
        )


def _shortened(text: str) -> str:
    """Return at most 24 characters of a user's text, so that a message stays short."""
    return repr(text if len(text) <= 24 else text[:24] + "…")
