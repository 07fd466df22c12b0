"""Convert equations to token sequences, and generated tokens to answers.

A user sees `7-12=` and `-5`. The model sees, for three-digit operands,

    700-210=  051919 00  -5000  END
    └prompt─┘ └scratch─┘ └answer

Operands are zero-padded; every number is written least significant digit first. All sequences of a
format have one length, so nothing is padded: operations that share a format (+ and -) share the
position table, the batch and the exported decoder.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from arithmetic import scratchpad
from arithmetic.grammar import Equation, Grammar, first_number, solve
from arithmetic.scratchpad import TokenColumns
from arithmetic.tokenizer import CHARACTERS, END, IDS


class Lengths(NamedTuple):
    """Count the tokens of a sequence; `generated` includes END."""

    prompt: int
    scratchpad: int
    generated: int


@dataclass(frozen=True)
class SequenceFormat:
    """Describe how operations are written out and read back.

    Attributes:
        name: the name of the exported decoder.
        operations: the operators that have this format.
        write: appends scratchpad and answer, given the indices of the operator and both operands.
        read: converts the answer's characters to the text a user sees, or None where they are not
            an integer.
    """

    name: str
    operations: str
    write: Callable[[TokenColumns, int, list[int], list[int]], None]
    read: Callable[[str], str | None]

    def lengths(self, digits: int) -> Lengths:
        """Return the fixed lengths of this format for operands of `digits` digits."""
        return _lengths(self.operations[0], digits)


def _read_number(answer: str) -> str | None:
    # Only ASCII reaches this, so isdecimal admits no other script.
    return (answer[::-1].lstrip("0") or "0") if answer.isdecimal() else None


def _read_signed(answer: str) -> str | None:
    magnitude = _read_number(answer[1:])
    if magnitude is None or answer[0] not in "+-":
        return None
    return magnitude if answer[0] == "+" else "-" + magnitude


def _read_quotient(answer: str) -> str | None:
    half = len(answer) // 2  # as many digits for the remainder
    quotient, remainder = _read_number(answer[:half]), _read_number(answer[half:])
    return None if quotient is None or remainder is None else f"{quotient}r{remainder}"


FORMATS = (
    SequenceFormat("add_subtract", "+-", scratchpad.add_subtract, _read_signed),
    SequenceFormat("multiply", "*", scratchpad.multiply, _read_number),
    SequenceFormat("divide", "/", scratchpad.divide, _read_quotient),
)
_BY_OPERATION = {operation: fmt for fmt in FORMATS for operation in fmt.operations}


def get_format(operation: str) -> SequenceFormat:
    """Return the format of an operation."""
    return _BY_OPERATION[operation]


def get_formats(operations: Iterable[str]) -> tuple[SequenceFormat, ...]:
    """Return the formats of some operations, each once, in their order."""
    return tuple(dict.fromkeys(_BY_OPERATION[operation] for operation in operations))


def locate(operation: str, grammar: Grammar) -> tuple[int, Lengths]:
    """Return the index of the operation's format among those of the grammar, and its lengths."""
    fmt = get_format(operation)
    return get_formats(grammar.operations).index(fmt), fmt.lengths(grammar.digits)


def encode_prompts(
    operation: str | np.ndarray, a: np.ndarray, b: np.ndarray, digits: int
) -> np.ndarray:
    """Return `A op B =` as ids: operands [N] and [N] to [N, P] uint8.

    Args:
        operation: one operator, or the operator's id for each row, [N].
    """
    prompts = np.empty((len(a), 2, digits + 1), np.uint8)
    prompts[:, :, :digits] = np.stack([a, b], 1)[:, :, None] // 10 ** np.arange(digits) % 10
    prompts[:, 0, digits] = IDS[operation] if isinstance(operation, str) else operation
    prompts[:, 1, digits] = IDS["="]
    return prompts.reshape(len(a), 2 * digits + 2)


def build_columns(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> TokenColumns:
    """Return the whole sequences of one operation with dependencies and names."""
    columns = TokenColumns()
    names = [f"operand {i}" for i in range(digits)]
    prompt = encode_prompts(operation, a, b, digits).T
    for column, name in zip(prompt, [*names, operation, *names, "="], strict=True):
        columns.append(column, name=name)
    first, second = list(range(digits)), list(range(digits + 1, 2 * digits + 1))
    get_format(operation).write(columns, digits, first, second)
    columns.append(np.full(len(a), END), name="end")
    return columns


def encode_sequences(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Return prompt, scratchpad, answer and END as ids: [N] and [N] to [N, T] uint8."""
    return np.stack(build_columns(operation, a, b, digits).columns, axis=1).astype(np.uint8)


@lru_cache
def _lengths(operation: str, digits: int) -> Lengths:
    columns = build_columns(operation, np.array([1]), np.array([1]), digits)
    prompt, total = 2 * digits + 2, len(columns.columns)
    return Lengths(prompt, columns.answer_start - prompt, total - prompt)


class Answer(NamedTuple):
    """Hold what a model generated after the prompt.

    Attributes:
        text: the answer as a user sees it; where it is not an integer, the raw characters.
        is_integer: False is a hallucination.
        ended: False is an infinite generation: no END where one belongs.
        scratchpad: the steps, as characters.
    """

    text: str
    is_integer: bool
    ended: bool
    scratchpad: str


# Ids to characters; an END before the end becomes '?', which keeps its place and is not an integer.
_CHARACTERS = (CHARACTERS + "?").encode().ljust(256, b"?")


def parse_answer(operation: str, generated: Sequence[int], digits: int) -> Answer:
    """Parse one row of generated ids [T], T the format's generated length."""
    fmt = get_format(operation)
    lengths = fmt.lengths(digits)
    characters = bytes([*generated]).translate(_CHARACTERS).decode()[: lengths.generated - 1]
    steps, answer = characters[: lengths.scratchpad], characters[lengths.scratchpad :]
    text = fmt.read(answer)
    ended = int(generated[lengths.generated - 1]) == END
    return Answer(answer if text is None else text, text is not None, ended, steps)


class Outcome(NamedTuple):
    """Classify one answer; several can hold at once.

    Attributes:
        wrong: not the exact answer, or the exact answer without an end.
        hallucination: not an integer (of a division: not a quotient and remainder).
        infinite_generation: no END where the answer is complete.
        out_of_range: an integer that no equation of this operation has as its answer.
    """

    wrong: bool
    hallucination: bool
    infinite_generation: bool
    out_of_range: bool


def classify(answer: Answer, expected: str, operation: str, grammar: Grammar) -> Outcome:
    """Compare an answer with the exact one (`arithmetic.grammar.solve`)."""
    out_of_range = False
    if answer.is_integer:
        lowest, highest = grammar.answer_range(operation)
        out_of_range = not lowest <= first_number(answer.text) <= highest
    return Outcome(
        wrong=answer.text != expected or not answer.ended,
        hallucination=not answer.is_integer,
        infinite_generation=not answer.ended,
        out_of_range=out_of_range,
    )


def grade(
    operation: str, a: np.ndarray, b: np.ndarray, generated: np.ndarray, grammar: Grammar
) -> list[tuple[Answer, Outcome]]:
    """Parse and classify the generated ids [N, T] of equations with operands [N] and [N]."""
    graded = []
    for x, y, ids in zip(a.tolist(), b.tolist(), generated.tolist(), strict=True):
        answer = parse_answer(operation, ids, grammar.digits)
        expected = solve(Equation(x, operation, y))
        graded.append((answer, classify(answer, expected, operation, grammar)))
    return graded
