"""Characters and ids are one to one, and unknown characters are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.errors import InvalidEquationError
from arithmetic.tokenizer import CHARACTERS, END, VOCABULARY_SIZE, decode, encode


@given(st.text(alphabet=CHARACTERS))
def test_decode_inverts_encode(text):
    assert decode(encode(text)) == text


@given(st.characters(exclude_characters=CHARACTERS))
def test_unknown_character_is_named(character):
    with pytest.raises(InvalidEquationError) as error:
        encode("1" + character)
    assert error.value.code == "unknown_character"
    assert f"{character!r} at position 2" in error.value.message
    assert CHARACTERS in error.value.hint


def test_digits_are_their_own_ids_and_end_closes_the_text():
    assert encode("0123456789") == list(range(10))
    assert decode([1, 2, END, 3]) == "12"
    assert sorted([*encode(CHARACTERS), END]) == list(range(VOCABULARY_SIZE))
