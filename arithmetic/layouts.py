"""The format a model reads and writes: an equation as a sequence of tokens.

A user sees `7-12=` and `-5`. The model sees, for three-digit operands,

    700-210=  05 19 19 00  -500  END
    └prompt─┘ └─scratch──┘ └answer

Operands are zero-padded; every number stands least significant digit first. The scratch is written
arithmetic (`arithmetic.written`), the answer has a fixed length, then comes END. All sequences of
one operation have one length, so nothing is padded and a batch holds one operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from arithmetic import written
from arithmetic.tokenizer import CHARACTERS, END, IDS
from arithmetic.written import Sheet


@dataclass(frozen=True)
class Layout:
    """How one operation is written out and read back.

    Attributes:
        write: puts the scratch on the sheet, given the indices of both operands' digits; returns
            what puts the answer.
        read: the answer's characters (and the number of digits of an operand) to what a user
            sees, or None where they are no integer.
    """

    write: Callable[[Sheet, list[int], list[int]], Callable[[], None]]
    read: Callable[[str, int], str | None]


def _number(digits: str) -> str | None:
    """Digits, least significant first, as a user writes the number."""
    # Nothing but ASCII comes here, so no decimal of another script passes.
    return (digits[::-1].lstrip("0") or "0") if digits.isdecimal() else None


def _read_number(answer: str, digits: int) -> str | None:
    return _number(answer)


def _read_signed(answer: str, digits: int) -> str | None:
    magnitude = _number(answer[1:])
    if magnitude is None or answer[0] not in "+-":
        return None
    return magnitude if answer[0] == "+" else "-" + magnitude


def _read_quotient(answer: str, digits: int) -> str | None:
    quotient, remainder = _number(answer[:digits]), _number(answer[digits:])
    return None if quotient is None or remainder is None else f"{quotient}r{remainder}"


LAYOUTS: dict[str, Layout] = {
    "+": Layout(written.add, _read_number),
    "-": Layout(written.subtract, _read_signed),
    "*": Layout(written.multiply, _read_number),
    "/": Layout(written.divide, _read_quotient),
}


def prompt_length(digits: int) -> int:
    """Tokens of `A op B =`."""
    return 2 * digits + 2


@dataclass(frozen=True)
class Lengths:
    """Tokens that an operation generates: scratch, then answer, then END."""

    scratch: int
    answer: int

    @property
    def generated(self) -> int:
        return self.scratch + self.answer + 1


def prompts(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """What the model is given: [N] and [N] integers to [N, prompt_length] uint8."""
    page = np.empty((len(a), 2, digits + 1), np.uint8)
    page[:, :, :digits] = np.stack([a, b], 1)[:, :, None] // 10 ** np.arange(digits) % 10
    page[:, :, digits] = IDS[operation], IDS["="]
    return page.reshape(len(a), prompt_length(digits))


def _prompt(
    operation: str, a: np.ndarray, b: np.ndarray, digits: int
) -> tuple[Sheet, list[int], list[int]]:
    """A sheet with the prompt on it, and where both operands' digits are."""
    page = Sheet()
    names = [f"operand {i}" for i in range(digits)]
    columns = prompts(operation, a, b, digits).T
    for column, name in zip(columns, [*names, operation, *names, "="], strict=True):
        page.put(column, name=name)
    first = list(range(digits))
    return page, first, [digits + 1 + i for i in first]


def sheet(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> tuple[Sheet, Lengths]:
    """The whole written equation with what each token looks at; operands [N] and [N]."""
    page, first, second = _prompt(operation, a, b, digits)
    write_answer = LAYOUTS[operation].write(page, first, second)
    after_scratch = len(page.columns)
    write_answer()
    lengths = Lengths(after_scratch - prompt_length(digits), len(page.columns) - after_scratch)
    page.put(np.full(len(a), END), name="end")
    return page, lengths


def sequences(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Prompt, scratch, answer and END as training sees them: [N, prompt + generated] uint8."""
    page, _ = sheet(operation, a, b, digits)
    return np.stack(page.columns, axis=1).astype(np.uint8)


@lru_cache
def lengths(operation: str, digits: int) -> Lengths:
    """The fixed lengths of one operation, read off one written example."""
    return sheet(operation, np.array([1]), np.array([1]), digits)[1]


class Answer(NamedTuple):  # quicker to make than a frozen dataclass; one a question
    """What a model wrote after the prompt.

    Attributes:
        text: the answer as a user sees it; where the model wrote no integer, its raw characters.
        is_integer: False is a hallucination.
        ended: False is an infinite generation: no END where one belongs.
        scratch: the written steps, as characters.
    """

    text: str
    is_integer: bool
    ended: bool
    scratch: str


# Ids to characters. An END inside the answer has none; '?' keeps its place, and is no integer.
_CHARACTERS = (CHARACTERS + "?").encode().ljust(256, b"?")


def read_answer(operation: str, generated: Sequence[int], digits: int) -> Answer:
    """Read one row of generated ids [T], T the operation's generated length."""
    span = lengths(operation, digits)
    characters = bytes([*generated]).translate(_CHARACTERS).decode()[: span.generated - 1]
    scratch, answer = characters[: span.scratch], characters[span.scratch :]
    text = LAYOUTS[operation].read(answer, digits)
    ended = int(generated[span.generated - 1]) == END
    return Answer(answer if text is None else text, text is not None, ended, scratch)
