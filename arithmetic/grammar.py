"""The equations of the domain: what may be asked, and the exact answer.

An equation is `A op B =` with ASCII digits only and nothing else: no spaces, no sign, no newline.
A further operation is one new entry in `OPERATIONS`, in `layouts.LAYOUTS` and in `steps`, and its
sign in `tokenizer.CHARACTERS`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from arithmetic.errors import InvalidEquation

Operands = tuple[np.ndarray, np.ndarray]

# Beyond this many equations a domain is sampled instead of listed: certifying them all would take
# many minutes and gigabytes.
LARGEST_LISTED = 10_000_000


@dataclass(frozen=True)
class Operation:
    """How one operator computes.

    Attributes:
        name: the word a person uses.
        compute: integers, or integer arrays of one shape, to the numbers of the answer.
        smallest_operand_2: 1 where nothing can be done with 0.
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
    """A question with its operands as numbers, so `007+1=` and `7+1=` are the same equation."""

    operand_1: int
    operation: str
    operand_2: int

    def __str__(self) -> str:
        return f"{self.operand_1}{self.operation}{self.operand_2}="


def solve(equation: Equation) -> str:
    """The exact answer as a user reads it: `962`, `-4`, `3r1`."""
    numbers = OPERATIONS[equation.operation].compute(equation.operand_1, equation.operand_2)
    return render(numbers)


def render(numbers: tuple[int, ...]) -> str:
    """The numbers of an answer as text; a remainder stands behind `r`."""
    return "r".join(str(number) for number in numbers)


def first_number(answer: str) -> int:
    """The number of an answer that is one, of a division its quotient."""
    return int(answer.split("r")[0])


def answer_length(numbers: np.ndarray) -> np.ndarray:
    """Digits in the (first) number of each answer, the sign not counted: [N] -> [N]."""
    magnitude = np.abs(numbers)
    length = np.ones_like(magnitude)
    power = 10
    while (magnitude >= power).any():
        length += magnitude >= power
        power *= 10
    return length


@dataclass(frozen=True)
class Grammar:
    """Which equations exist: the operations, and operands from 0 to `max_operand`."""

    operations: tuple[str, ...]
    max_operand: int

    @property
    def digits(self) -> int:
        """The most digits an operand may have (leading zeros included)."""
        return len(str(self.max_operand))

    def parse(self, text: str) -> Equation:
        """Read what a user typed.

        Raises:
            InvalidEquation: the text is outside this grammar; the message says where and what
                would be accepted.
        """
        match = re.fullmatch(r"([0-9]+)([^0-9])([0-9]+)=", text)
        if match is None:
            raise self._complaint(text)
        first, operation, second = match.groups()
        if operation not in self.operations:
            raise InvalidEquation(
                f"{operation!r} is not an operation of this model; it knows {self._symbols()}",
                "unknown_operation",
            )
        for operand in (first, second):
            if len(operand) > self.digits:
                raise InvalidEquation(
                    f"operand {_shortened(operand)} has more than {self.digits} digits; "
                    f"operands go from 0 to {self.max_operand}",
                    "out_of_range",
                )
            if int(operand) > self.max_operand:
                raise InvalidEquation(
                    f"operand {operand} is too large; operands go from 0 to {self.max_operand}",
                    "out_of_range",
                )
        if int(second) < OPERATIONS[operation].smallest_operand_2:
            raise InvalidEquation(
                f"{first}{operation}{second} is a division by zero: no answer", "division_by_zero"
            )
        return Equation(int(first), operation, int(second))

    def count(self, operation: str) -> int:
        """How many equations of one operation there are."""
        size = self.max_operand + 1
        return size * (size - OPERATIONS[operation].smallest_operand_2)

    @property
    def size(self) -> int:
        """How many equations there are."""
        return sum(self.count(operation) for operation in self.operations)

    @property
    def listed(self) -> bool:
        """Whether the domain is small enough to hold every equation in memory at once."""
        return self.size <= LARGEST_LISTED

    def answer_range(self, operation: str) -> tuple[int, int]:
        """The smallest and largest exact (first) number."""
        return _answer_range(operation, self.max_operand)

    def equations(self, operation: str) -> Operands:
        """Every equation of one operation, as two int64 arrays [N]; operand_2 runs fastest."""
        numbers = np.arange(self.max_operand + 1, dtype=np.int64)
        seconds = numbers[OPERATIONS[operation].smallest_operand_2 :]
        first, second = np.meshgrid(numbers, seconds, indexing="ij")
        return first.ravel(), second.ravel()

    def index(self, operation: str, operand_1: np.ndarray, operand_2: np.ndarray) -> np.ndarray:
        """Where equations stand in `equations`, or would stand: [N], [N] -> [N]."""
        smallest = OPERATIONS[operation].smallest_operand_2
        return operand_1 * (self.max_operand + 1 - smallest) + operand_2 - smallest

    def _symbols(self) -> str:
        return " ".join(self.operations)

    def _complaint(self, text: str) -> InvalidEquation:
        example = f"12{self.operations[0]}7="
        if not text:
            return InvalidEquation(f"the equation is empty; write one like {example}", "empty")
        allowed = set("0123456789=") | set(self.operations)
        for position, character in enumerate(text):
            if character not in allowed:
                return InvalidEquation(
                    f"character {character!r} at position {position + 1} is not part of an "
                    f"equation; use the digits 0-9, one of {self._symbols()} and a final '='",
                    "unknown_character",
                )
        if not text.endswith("="):
            return InvalidEquation(
                f"the equation {_shortened(text)} does not end in '='; write one like {example}",
                "no_equals_sign",
            )
        return InvalidEquation(
            f"{_shortened(text)} is not an equation; write two numbers with one of "
            f"{self._symbols()} between them and a final '=', like {example}"
        )


@lru_cache
def _answer_range(operation: str, max_operand: int) -> tuple[int, int]:
    """From the corners of the domain: every operation is monotonous in each operand."""
    first = np.array([0, max_operand])
    second = np.array([OPERATIONS[operation].smallest_operand_2, max_operand])
    corners = (x.ravel() for x in np.meshgrid(first, second))
    numbers = OPERATIONS[operation].compute(*corners)[0]
    return int(numbers.min()), int(numbers.max())


def _shortened(text: str) -> str:
    """At most 24 characters of what a user sent, so that a message stays a sentence."""
    return repr(text if len(text) <= 24 else text[:24] + "…")
