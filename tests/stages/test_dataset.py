"""Damaged data files are rejected, and never cut to fit."""

from pathlib import Path

import numpy as np
import pytest

from arithmetic.errors import InvalidParamsError
from arithmetic.grammar import Grammar
from stages.dataset import read_split, split_path

GRAMMAR = Grammar(("+", "/"), 9)
HEADER = "equation,operand_1,operation,operand_2,answer\n"


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = split_path("train")
    path.parent.mkdir()
    return path


def test_operands_are_grouped_by_operation_in_the_order_of_the_file(path):
    path.write_text(f"{HEADER}9/1=,9,/,1,9r0\n1+2=,1,+,2,3\n8/3=,8,/,3,2r2\n")
    operands = read_split("train", GRAMMAR)
    assert list(operands) == ["+", "/"]
    assert [part.tolist() for part in operands["/"]] == [[9, 8], [1, 3]]
    assert operands["+"][0].dtype == np.int64


@pytest.mark.parametrize(
    "operands",
    ["", "x,+,1", ",+,1", "1.5,+,1", "-5,+,1", "10,+,1", "1,+,10", "3,*,3", "3,,3", "3,/,0"],
)
def test_row_outside_the_grammar_is_rejected(path, operands):
    row = operands and f"{operands.replace(',', '')}=,{operands},?"
    path.write_text(f"{HEADER}{row}\n")
    with pytest.raises(InvalidParamsError, match=r"data/train\.csv") as error:
        read_split("train", GRAMMAR)
    assert "dvc repro" in error.value.hint


@pytest.mark.parametrize("content", [None, b"", b"equation\n1+1=\n", b"\xff\xfe\x00"])
def test_file_that_is_no_data_set_is_rejected(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidParamsError, match=r"cannot read data/train\.csv"):
        read_split("train", GRAMMAR)
