"""The format a model reads and writes: an equation as a sequence of tokens.

A user sees `7-12=` and `-5`. The model sees, for three-digit operands,

    700-210=  05 19 -9  500-  END
    └prompt─┘ └scratch┘ └answer

- Every number is zero-padded and written least significant digit first, so that each digit depends
  only on what stands before it (Lee et al. 2023, "Teaching Arithmetic to Small Transformers").
- The scratch is the sum a pupil writes: for each digit position the carry (or borrow) *before* its
  digit. The last one is the sign of a difference (`-` or 0). Writing carries is what made
  signed subtraction exact: sign-first and complement formats without it left 31-407 errors in
  2,000,000 (shared facts, `docs/decisions.md`).
- The answer has one digit per position, then the leading token (0, 1 or `-`), then END.

All sequences of one operation have one length, so no padding is computed during training. Layouts
work on whole columns: `a[i]` is the array of the i-th digits of all first operands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arithmetic.tokenizer import CHARACTERS, END, IDS

Column = np.ndarray  # [N] uint8, one token of every sequence
MINUS, EQUALS = IDS["-"], IDS["="]


@dataclass(frozen=True)
class Written:
    """What follows the prompt: columns of the scratch and of the answer, END not included."""

    scratch: list[Column]
    answer: list[Column]


@dataclass(frozen=True)
class Layout:
    """How one operation is written out and read back.

    Attributes:
        write: digit columns of both operands (least significant first) to scratch and answer.
        read: the answer's characters to what a user sees, or None where they are no integer.
    """

    write: Callable[[list[Column], list[Column]], Written]
    read: Callable[[str], str | None]


def _write_addition(a: list[Column], b: list[Column]) -> Written:
    carry = np.zeros_like(a[0])
    scratch, digits = [], []
    for x, y in zip(a, b, strict=True):
        total = x + y + carry
        carry, digit = total // 10, total % 10
        scratch += [carry, digit]
        digits.append(digit)
    return Written(scratch, [*digits, carry])


def _write_subtraction(a: list[Column], b: list[Column]) -> Written:
    borrow = np.zeros_like(a[0])
    scratch, wrapped = [], []
    for x, y in zip(a, b, strict=True):
        short = y + borrow > x
        digit = x + 10 * short.astype(x.dtype) - y - borrow
        borrow = short.astype(x.dtype)
        scratch += [borrow, digit]
        wrapped.append(digit)
    negative = borrow == 1
    sign = np.where(negative, MINUS, 0).astype(a[0].dtype)
    scratch[-2] = sign
    # A negative result came out modulo 10^n: its magnitude is the ten's complement, digit by digit.
    digits, carry = [], np.ones_like(borrow)
    for digit in wrapped:
        complement = 9 - digit + carry
        carry = (complement == 10).astype(digit.dtype)
        digits.append(np.where(negative, complement % 10, digit).astype(digit.dtype))
    return Written(scratch, [*digits, sign])


def _read_number(answer: str) -> str | None:
    """Least significant first, leading token (digit or `-`) last."""
    digits, leading = answer[-2::-1], answer[-1:]
    if not digits.isdecimal() or not (leading.isdecimal() or leading == "-"):
        return None
    if leading == "-":
        return "-" + (digits.lstrip("0") or "0")
    return (leading + digits).lstrip("0") or "0"


LAYOUTS: dict[str, Layout] = {
    "+": Layout(_write_addition, _read_number),
    "-": Layout(_write_subtraction, _read_number),
}


def _digit_columns(numbers: np.ndarray, digits: int) -> list[Column]:
    return [((numbers // 10**i) % 10).astype(np.uint8) for i in range(digits)]


def prompt_length(digits: int) -> int:
    """Tokens of `A op B =`."""
    return 2 * digits + 2


def prompts(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """What the model is given: [N] and [N] integers to [N, prompt_length] uint8."""
    operator = np.full(len(a), IDS[operation], np.uint8)
    equals = np.full(len(a), EQUALS, np.uint8)
    columns = [*_digit_columns(a, digits), operator, *_digit_columns(b, digits), equals]
    return np.stack(columns, axis=1)


def sequences(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Prompt, scratch, answer and END as training sees them: [N, prompt + generated] uint8."""
    written = LAYOUTS[operation].write(_digit_columns(a, digits), _digit_columns(b, digits))
    end = np.full(len(a), END, np.uint8)
    completion = np.stack([*written.scratch, *written.answer, end], axis=1)
    return np.concatenate([prompts(operation, a, b, digits), completion], axis=1)


@dataclass(frozen=True)
class Lengths:
    """Tokens that an operation generates: scratch, then answer, then END."""

    scratch: int
    answer: int

    @property
    def generated(self) -> int:
        return self.scratch + self.answer + 1


def lengths(operation: str, digits: int) -> Lengths:
    """The fixed lengths of one operation, read off one written example."""
    zero = [np.zeros(1, np.uint8)] * digits
    written = LAYOUTS[operation].write(zero, zero)
    return Lengths(len(written.scratch), len(written.answer))


def max_generated(operations: Sequence[str], digits: int) -> int:
    """The longest completion of any of these operations: decoding stops there."""
    return max(lengths(operation, digits).generated for operation in operations)


@dataclass(frozen=True)
class Answer:
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


def read_answer(operation: str, generated: Sequence[int], digits: int) -> Answer:
    """Read one row of generated ids [T], T at least the operation's generated length."""
    span = lengths(operation, digits)
    tokens = [int(token) for token in generated[: span.generated]]
    ended = tokens[-1] == END
    # A special inside the answer has no character; '?' keeps its place, and is no integer.
    characters = "".join(CHARACTERS[t] if t < END else "?" for t in tokens[:-1])
    scratch, answer = characters[: span.scratch], characters[span.scratch :]
    text = LAYOUTS[operation].read(answer)
    return Answer(answer if text is None else text, text is not None, ended, scratch)
