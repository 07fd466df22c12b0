"""The data: exact, disjoint, balanced, and a function of the seed."""

import numpy as np
import pandas as pd
import pytest

from arithmetic.errors import InvalidParamsError
from arithmetic.grammar import Equation, Grammar, solve
from stages import sampling
from stages.generate import SPLITS, generate, quotas, read_hard_cases, summarize
from stages.params import Generate

SIZES = {"train_size": 4000, "validation_size": 501, "test_size": 500}
SHARES = {"cascade_share": 0.3, "zeros_and_nines_share": 0.25, "input_combinations_share": 0.2}
DOMAIN = {"seed": 1, "operations": ["+", "-"], "max_operand": 99, "hard_case_copies": 3}
PARAMS = Generate.model_validate({**DOMAIN, **SIZES, **SHARES})
KEY = ["operand_1", "operation", "operand_2"]


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    return generate(PARAMS)


def test_rows_are_exact_and_no_equation_is_in_two_of_them(splits):
    assert [len(splits[name]) for name in SPLITS] == list(SIZES.values())
    for data in splits.values():
        assert list(data.columns) == ["equation", *KEY, "answer"]
    joined = pd.concat(splits.values())
    assert not joined.duplicated(KEY).any()
    for row in joined.itertuples():
        equation = PARAMS.grammar.parse(row.equation)
        assert equation == Equation(row.operand_1, row.operation, row.operand_2)
        assert row.answer == solve(equation)


def test_operations_are_balanced_and_every_answer_length_is_in_every_split(splits):
    table = summarize(splits)
    for _, data in table.groupby("split"):
        per_operation = data.groupby("operation")["equations"].sum()
        assert abs(per_operation["+"] - per_operation["-"]) <= 1
    assert len(table) == 3 * (3 + 2)  # + has answers of 1-3 digits, - of 1-2, in three splits
    assert (table["equations"] > 0).all()


def test_cascades_are_more_frequent_than_by_chance(splits):
    sums = splits["train"].query("operation == '+'")
    share = ((sums["operand_1"] // 10 + sums["operand_2"] // 10) == 9).mean()
    assert share > 0.2  # chance gives 0.10


def test_data_is_a_function_of_the_seed(splits):
    again = generate(PARAMS)
    assert all(again[name].equals(splits[name]) for name in SPLITS)
    other = generate(PARAMS.model_copy(update={"seed": 2}))
    assert not other["train"].equals(splits["train"])


def test_too_small_domain_is_rejected():
    with pytest.raises(InvalidParamsError, match="operands up to 9") as error:
        generate(PARAMS.model_copy(update={"max_operand": 9}))
    assert error.value.hint == "lower the sizes or raise generate.max_operand"


def test_large_domain_is_drawn_from_candidates(monkeypatch):
    monkeypatch.setattr(sampling, "POOL", 20_000)
    params = PARAMS.model_copy(update={"operations": ["+", "-", "*", "/"], "max_operand": 123_456})
    assert not params.grammar.is_listed
    splits, again = generate(params), generate(params)
    assert all(again[name].equals(splits[name]) for name in SPLITS)
    assert [len(splits[name]) for name in SPLITS] == list(SIZES.values())
    joined = pd.concat(splits.values())
    assert joined["equation"].is_unique
    for text, answer in zip(joined["equation"], joined["answer"], strict=True):
        assert solve(params.grammar.parse(text)) == answer
    sums = splits["train"].query("operation == '+'")
    assert set(sums["answer"].str.len()) == {1, 2, 3, 4, 5, 6}


def test_hard_cases_are_repeated_in_training_and_in_no_other_split(splits):
    drawn, new = splits["test"]["equation"].iloc[0], "7+1="
    hard = [PARAMS.grammar.parse(text) for text in (drawn, new)]
    changed = generate(PARAMS, hard)
    counts = changed["train"]["equation"].value_counts()
    assert counts[drawn] == counts[new] == PARAMS.hard_case_copies
    assert counts.drop([drawn, new]).max() == 1
    assert set(changed["train"].query("equation == @new")["answer"]) == {"8"}
    for name in ("validation", "test"):
        assert not {drawn, new} & set(changed[name]["equation"])


def test_hard_cases_are_read_once_each_and_others_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hard_cases.csv").write_text("equation\n07+1=\n5*5=\n7+1=\n\n")
    assert read_hard_cases(PARAMS.grammar) == [Equation(7, "+", 1)]
    assert "leaving out '5*5='" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"question\n1+1=\n", b"", b"\xff\xfe"])
def test_file_without_hard_cases_is_rejected(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "hard_cases.csv").write_bytes(content)
    with pytest.raises(InvalidParamsError, match=r"cannot read hard cases from hard_cases\.csv"):
        read_hard_cases(Grammar(("+",), 9))


def test_quotas_share_equally_and_pass_on_what_a_small_stratum_lacks():
    assert quotas({1: 55, 2: 4995, 3: 495450, 4: 499500}, [50000, 2500, 2500]) == {
        1: [33, 11, 11],
        2: [2997, 829, 829],
        3: [23485, 830, 830],
        4: [23485, 830, 830],
    }


def test_stage_writes_splits_and_summary(trained):
    files = [path.name for path in sorted((trained / "data").iterdir())]
    assert files == ["test.csv", "train.csv", "validation.csv"]
    summary = pd.read_csv(trained / "metrics" / "data_summary.csv")
    sizes = summary.groupby("split")["equations"].sum()
    assert sizes.to_dict() == {"test": 20, "train": 120, "validation": 20}
    assert b"\r" not in (trained / "data" / "train.csv").read_bytes()
    assert np.isin(summary["operation"], ["+", "-"]).all()
