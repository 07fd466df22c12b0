"""The data: exact, disjoint, balanced, the same for the same seed."""

import stages  # noqa: F401, I001

import numpy as np
import pandas as pd
import pytest

from arithmetic import layouts
from arithmetic.errors import InvalidParams
from arithmetic.grammar import Grammar, solve
from stages import sampling
from stages.generate import SPLITS, generate, quotas, read_hard_cases, summary
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
    cells_share=0.2,
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
    assert share > 0.2, "chance gives 0.10"


def test_the_seed_decides_and_nothing_else(splits):
    again = generate(PARAMS)
    assert all(again[name].equals(splits[name]) for name in SPLITS)
    other = generate(PARAMS.model_copy(update={"seed": 2}))
    assert not other["train"].equals(splits["train"])


def test_a_domain_that_is_too_small_is_said_so():
    with pytest.raises(InvalidParams, match=r"lower the sizes or raise generate\.max_operand"):
        generate(PARAMS.model_copy(update={"max_operand": 9}))


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_weights_are_a_distribution_over_the_domain(operation):
    grammar = Grammar((operation,), 99)
    _, _, weights = sampling.candidates(grammar, operation, PARAMS, 10, np.random.default_rng(1))
    assert len(weights) == grammar.count(operation)
    assert (weights > 0).all()
    assert abs(weights.sum() - 1) < 1e-9


LARGE = PARAMS.model_copy(
    update={"operations": ["+", "-", "*", "/"], "max_operand": 123_456, "train_size": 4000}
)


def test_a_domain_too_large_to_list_is_drawn_from_candidates(monkeypatch):
    """Distinct, inside the domain, disjoint, the same again, and with short answers among them."""
    monkeypatch.setattr(sampling, "POOL", 20_000)
    grammar = LARGE.grammar
    assert not grammar.listed
    splits, again = generate(LARGE), generate(LARGE)
    assert all(again[name].equals(splits[name]) for name in SPLITS)
    joined = pd.concat(splits.values())
    assert len(joined) == LARGE.train_size + LARGE.validation_size + LARGE.test_size
    assert joined["equation"].is_unique
    for text, answer in zip(joined["equation"], joined["answer"], strict=True):
        assert solve(grammar.parse(text)) == answer
    sums = splits["train"].query("operation == '+'")
    assert set(sums["answer"].str.len()) == {1, 2, 3, 4, 5, 6}


def test_hard_cases_are_in_training_and_nowhere_else():
    test = generate(PARAMS)["test"]
    drawn, padded = test["equation"].iloc[0], "07+1="
    splits = generate(PARAMS, [drawn, padded, "7+1="])
    train = splits["train"]
    assert train["equation"].is_unique
    assert {drawn, "7+1="} <= set(train["equation"])
    assert train.set_index("equation")["answer"]["7+1="] == "8"
    for name in ("validation", "test"):
        assert not {drawn, "7+1="} & set(splits[name]["equation"])


def test_a_hard_case_outside_the_domain_is_said_so(tmp_path):
    with pytest.raises(InvalidParams, match="hard case is outside the domain"):
        generate(PARAMS, ["5*5="])
    listing = tmp_path / "hard_cases.csv"
    listing.write_text("question\n1+1=\n")
    with pytest.raises(InvalidParams, match="not a list of hard cases"):
        read_hard_cases(listing)


def test_cells_show_rare_combinations_evenly():
    """Of a sum's last carry, all 200 inputs (two digits, a carry) are drawn equally often."""
    grammar = Grammar(("+",), 99)
    a, b = grammar.equations("+")
    weights = sampling.by_cells("+", a, b, 2)
    page, _ = layouts.sheet("+", a, b, 2)
    carry = page.names.index("carry 1")
    cells = sum(page[i] * 10**k for k, i in enumerate(page.looks_at[carry]))
    shares = np.bincount(cells, weights)
    even = np.bincount(cells, np.full(len(a), 1 / len(a)))
    assert shares[shares > 0].std() < even[even > 0].std()


def test_quotas_share_equally_and_hand_on_what_a_small_stratum_lacks():
    assert quotas({1: 55, 2: 4995, 3: 495450, 4: 499500}, [50000, 2500, 2500]) == {
        1: [33, 11, 11],
        2: [2997, 829, 829],
        3: [23485, 830, 830],
        4: [23485, 830, 830],
    }
