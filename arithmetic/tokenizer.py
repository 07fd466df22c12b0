"""Convert characters to token ids and back.

The ids of the digits are the digits themselves, so a column of digits is already a column of
tokens. `>` marks a multiple that has outgrown its digits (division). END closes every answer; a
model that never writes it is counted as infinite generation.
"""

from collections.abc import Iterable

from arithmetic.errors import InvalidEquationError

CHARACTERS = "0123456789+-*/=>"
IDS = {character: index for index, character in enumerate(CHARACTERS)}
END = len(CHARACTERS)
VOCABULARY_SIZE = END + 1


def encode(text: str) -> list[int]:
    """Return the ids of `text`; raise InvalidEquationError on a character without an id."""
    for position, character in enumerate(text):
        if character not in IDS:
            raise InvalidEquationError(
                f"character {character!r} at position {position + 1} is not in the vocabulary",
                f"use the characters {CHARACTERS}",
                "unknown_character",
            )
    return [IDS[character] for character in text]


def decode(ids: Iterable[int]) -> str:
    """Return the characters of `ids` up to, not including, the first END."""
    text = []
    for token in ids:
        if token == END:
            break
        text.append(CHARACTERS[token])
    return "".join(text)
