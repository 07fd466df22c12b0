"""The weights of a domain: a distribution that covers every combination of dependencies."""

import numpy as np
import pytest

from arithmetic.formats import build_columns
from arithmetic.grammar import OPERATIONS, Grammar
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.sampling import (
    by_input_combinations,
    by_second_operand,
    candidates,
    pair_table,
    pool,
)
from tests.stages.test_generate import PARAMS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_weights_are_a_distribution_over_the_domain(operation):
    grammar = Grammar((operation,), 99)
    a, b, weights = candidates(grammar, operation, PARAMS, 10, np.random.default_rng(1))
    assert grammar.index(operation, a, b).tolist() == list(range(grammar.count(operation)))
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("operation", ["+", "-"])
def test_pair_table_is_a_distribution_heavy_on_its_edge(operation):
    table = pair_table(operation, PARAMS)
    assert table.sum() == pytest.approx(1)
    x, y = np.indices((10, 10))
    edge = x + y == 9 if operation == "+" else x == y
    assert table[edge].sum() > 0.3


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_combination_of_dependencies_has_its_share(operation):
    """Of every token alike, and of each token's combinations alike, however rare they are."""
    a, b = Grammar((operation,), 99).equations(operation)
    weights = by_input_combinations(operation, a, b, 2)
    columns = build_columns(operation, a, b, 2)
    tokens = [dependencies for dependencies in columns.dependencies if len(dependencies) > 1]
    for dependencies in tokens:
        combination = sum(columns[i] * VOCABULARY_SIZE**k for k, i in enumerate(dependencies))
        shares = np.bincount(combination, weights)
        present = shares[shares > 0]
        assert present.min() >= 1 / (len(tokens) * len(present)) * (1 - 1e-9)


def test_lengths_of_divisors_are_weighted_by_themselves():
    b = np.arange(1, 1000)
    weights = by_second_operand(b)
    shares = [weights[(b >= low) & (b < 10 * low)].sum() for low in (1, 10, 100)]
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_pool_is_distinct_inside_the_domain_and_has_short_operands(operation):
    grammar = Grammar((operation,), 123_456)
    a, b = pool(grammar, operation, PARAMS, 5000, np.random.default_rng(1))
    assert 0 <= a.min() <= a.max() <= 123_456
    assert OPERATIONS[operation].smallest_operand_2 <= b.min() <= b.max() <= 123_456
    assert len(np.unique(grammar.index(operation, a, b))) == len(a) > 1000
    assert (a < 100).mean() > 0.05
