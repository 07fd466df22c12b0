"""Scratchpads: every token is a function of the earlier tokens that it depends on."""

import numpy as np
import pytest

from arithmetic.formats import build_columns
from arithmetic.grammar import OPERATIONS, Grammar
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
