"""The data: exact, disjoint, balanced, the same for the same seed."""

import stages  # noqa: F401, I001

import pandas as pd
import pytest

from arithmetic.errors import InvalidParams
from arithmetic.grammar import Grammar, solve
from stages.generate import SPLITS, generate, quotas, summary
from stages.params import Generate

PARAMS = Generate(
    seed=1,
    operations=["+", "-"],
    max_operand=99,
    train_size=4000,
    validation_size=501,
    test_size=500,
    cascade_share=0.3,
    zeros_and_nines_share=0.25,
)
KEY = ["operand_1", "operation", "operand_2"]


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    return generate(PARAMS)


def test_sizes_and_columns_are_as_asked(splits):
    assert [len(splits[name]) for name in SPLITS] == [4000, 501, 500]
    for data in splits.values():
        assert list(data.columns) == ["equation", *KEY, "answer"]


def test_no_equation_stands_twice_anywhere(splits):
    everything = pd.concat(splits.values())
    assert not everything.duplicated(KEY).any()


def test_every_row_is_right(splits):
    grammar = Grammar(("+", "-"), 99)
    for row in pd.concat(splits.values()).itertuples():
        equation = grammar.parse(row.equation)
        assert (equation.operand_1, equation.operation, equation.operand_2) == tuple(
            getattr(row, name) for name in KEY
        )
        assert row.answer == solve(equation)


def test_operations_are_balanced_and_every_answer_length_is_in_every_split(splits):
    table = summary(splits)
    for _, data in table.groupby("split"):
        per_operation = data.groupby("operation")["equations"].sum()
        assert abs(per_operation["+"] - per_operation["-"]) <= 1
    assert len(table) == 3 * (3 + 2), "+ has answers of 1-3 digits, - of 1-2, in three splits"
    assert (table["equations"] > 0).all()


def test_cascades_are_there_and_more_than_chance_gives(splits):
    """`99+1=`-like chains: a nine in the sum's last digits pushes a carry through."""
    train = splits["train"]
    sums = train[train["operation"] == "+"]
    share = ((sums["operand_1"] // 10 + sums["operand_2"] // 10) == 9).mean()
    assert share > 0.25, "chance gives 0.10"


def test_the_seed_decides_and_nothing_else(splits):
    again = generate(PARAMS)
    assert all(again[name].equals(splits[name]) for name in SPLITS)
    other = generate(PARAMS.model_copy(update={"seed": 2}))
    assert not other["train"].equals(splits["train"])


def test_a_domain_that_is_too_small_is_said_so():
    with pytest.raises(InvalidParams, match=r"lower the sizes or raise generate\.max_operand"):
        generate(PARAMS.model_copy(update={"max_operand": 9}))


def test_quotas_share_equally_and_hand_on_what_a_small_stratum_lacks():
    assert quotas({1: 55, 2: 4995, 3: 495450, 4: 499500}, [50000, 2500, 2500]) == {
        1: [33, 11, 11],
        2: [2997, 829, 829],
        3: [23485, 830, 830],
        4: [23485, 830, 830],
    }
