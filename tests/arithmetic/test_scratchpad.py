"""Scratchpads: every token is a function of the earlier tokens that it depends on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arithmetic.formats import build_columns
from arithmetic.grammar import OPERATIONS, Grammar
from arithmetic.scratchpad import OVERFLOW
from arithmetic.tokenizer import VOCABULARY_SIZE


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("largest", [9, 99])
def test_every_token_is_a_function_of_its_dependencies(operation, largest):
    grammar = Grammar((operation,), largest)
    columns = build_columns(operation, *grammar.equations(operation), grammar.digits)
    for index, dependencies in enumerate(columns.dependencies):
        combination = np.zeros(grammar.size, np.int64)
        for source in dependencies:
            combination = combination * VOCABULARY_SIZE + columns[source]
        pairs = np.unique(np.stack([combination, columns[index]]), axis=1)
        if dependencies:
            assert len(np.unique(pairs[0])) == pairs.shape[1], columns.names[index]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("digits", [1, 2, 3, 6])
def test_generated_tokens_have_earlier_dependencies_and_names(operation, digits):
    columns = build_columns(operation, np.array([7]), np.array([3]), digits)
    prompt = 2 * digits + 2
    assert prompt < columns.answer_start < len(columns.columns) - 1
    assert all(columns.dependencies[prompt:-1])
    for index, dependencies in enumerate(columns.dependencies):
        assert all(source < index for source in dependencies)
    names = columns.names[prompt : columns.answer_start]
    assert len(set(names)) == len(names)


@given(st.integers(0, 999), st.integers(1, 999))
def test_long_division_doubles_the_divisor_until_it_outgrows_its_digits(a, b):
    columns = build_columns("/", np.array([a]), np.array([b]), 3)
    for factor in (2, 4, 8):
        tokens = [int(columns[columns.names.index(f"{factor}b {i}")][0]) for i in range(3)]
        if factor * b > 999:
            assert OVERFLOW in tokens
        else:
            assert tokens == [factor * b // 10**i % 10 for i in range(3)]
