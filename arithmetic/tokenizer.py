"""Characters to ids and back; strict, so that nothing is silently dropped.

The ids of the digits are the digits themselves: layouts do arithmetic on columns of digits, and a
column of digits is then already a column of tokens. `>` is the model's own mark for a multiple that
has outgrown its digits. END closes every answer and has no character that a user could type: a
model that never writes it is measured as infinite generation.
"""

from collections.abc import Iterable

from arithmetic.errors import UnknownCharacter

CHARACTERS = "0123456789+-*/=>"
IDS = {character: index for index, character in enumerate(CHARACTERS)}
END = len(CHARACTERS)
VOCABULARY_SIZE = END + 1


def encode(text: str) -> list[int]:
    """The ids of `text`.

    Raises:
        UnknownCharacter: names the first character outside the vocabulary.
    """
    ids = []
    for position, character in enumerate(text):
        if character not in IDS:
            raise UnknownCharacter(
                f"character {character!r} at position {position + 1} is not in the vocabulary "
                f"{CHARACTERS!r}"
            )
        ids.append(IDS[character])
    return ids


def decode(ids: Iterable[int]) -> str:
    """The characters of `ids` up to, not including, the first END."""
    text = []
    for token in ids:
        if token == END:
            break
        text.append(CHARACTERS[token])
    return "".join(text)
