"""Characters and ids are one to one, and nothing unknown gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.errors import UnknownCharacter
from arithmetic.tokenizer import CHARACTERS, END, VOCABULARY_SIZE, decode, encode


@given(st.text(alphabet=CHARACTERS))
def test_round_trip(text):
    assert decode(encode(text)) == text


@given(st.characters(exclude_characters=CHARACTERS))
def test_an_unknown_character_is_named(character):
    with pytest.raises(UnknownCharacter) as refusal:
        encode("1" + character)
    assert repr(character) in str(refusal.value)
    assert "position 2" in str(refusal.value)


def test_digits_are_their_own_ids():
    assert encode("0123456789") == list(range(10))


def test_end_closes():
    assert decode([1, 2, END, 3]) == "12"


def test_ids_fill_the_vocabulary():
    assert sorted([*encode(CHARACTERS), END]) == list(range(VOCABULARY_SIZE))
