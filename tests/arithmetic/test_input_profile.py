"""The input profile counts every equation in every feature, and PSI compares two of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.artifacts import INPUT_PROFILE
from arithmetic.errors import InvalidModelError
from arithmetic.grammar import Grammar
from arithmetic.input_profile import MAGNITUDES, profile, psi, read_profile, write_profile

GRAMMAR = Grammar(("+", "/"), 999)
COUNTS = st.lists(st.integers(0, 1000), min_size=4, max_size=4)


def bins(counts: list[int]) -> dict[str, int]:
    return {str(index): count for index, count in enumerate(counts)}


def test_profile_counts_operations_digits_and_magnitudes():
    operands = np.array([0, 9, 10, 99, 100, 999]), np.array([1, 1, 1, 1, 1, 500])
    content = profile({"+": operands}, GRAMMAR)
    assert content["operation"] == {"+": 6, "/": 0}
    assert content["operand_1_digits"] == {"1": 2, "2": 2, "3": 2}
    assert content["operand_2_digits"] == {"1": 5, "2": 0, "3": 1}
    magnitudes = dict.fromkeys(map(str, range(10)), 0) | {"0": 4, "1": 1, "9": 1}
    assert content["operand_1_magnitude"] == magnitudes
    assert content["operand_2_magnitude"]["5"] == 1


@given(st.data(), st.integers(1, 12_345))
def test_every_equation_is_counted_once_in_each_feature(data, largest):
    grammar = Grammar(("+", "/"), largest)
    numbers = data.draw(st.lists(st.integers(0, largest), min_size=1, max_size=20))
    operands = np.array(numbers), np.array(numbers[::-1])
    content = profile({"+": operands, "/": operands}, grammar)
    assert {sum(counts.values()) for counts in content.values()} == {2 * len(numbers)}
    assert len(content["operand_1_magnitude"]) == MAGNITUDES


def test_profile_is_read_as_it_was_written(tmp_path):
    content = profile({"+": (np.array([7]), np.array([12]))}, GRAMMAR)
    write_profile(tmp_path, content)
    assert read_profile(tmp_path, GRAMMAR) == content
    assert (tmp_path / INPUT_PROFILE).read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "damage", [None, b"\xff{", b"[]", {"+": 1}, {"+": -1, "/": 0}, {"+": "1", "/": 0}]
)
def test_damaged_profile_is_named(tmp_path, damage):
    path = tmp_path / INPUT_PROFILE
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage:
        path.write_text(json.dumps(profile({}, GRAMMAR) | {"operation": damage}))
    with pytest.raises(InvalidModelError, match=r"input_profile\.json is not a profile"):
        read_profile(tmp_path, GRAMMAR)


@given(COUNTS, COUNTS)
def test_psi_is_a_symmetric_distance(first, second):
    assert psi(bins(first), bins(first)) == 0
    value = psi(bins(first), bins(second))
    assert value >= 0
    assert value == pytest.approx(psi(bins(second), bins(first)))


def test_psi_grows_with_the_shift():
    expected = bins([250, 250, 250, 250])
    stable, shifted = psi(expected, bins([24, 26, 25, 25])), psi(expected, bins([0, 0, 50, 50]))
    assert stable < 0.1
    assert shifted > 0.25
