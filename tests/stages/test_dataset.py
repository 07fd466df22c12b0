"""Data of another make is one sentence, and never cut to fit."""

import stages  # noqa: F401, I001

import numpy as np
import pytest

from arithmetic.errors import InvalidParams
from arithmetic.grammar import Grammar
from stages.splits import read_split

GRAMMAR = Grammar(("+", "/"), 9)
HEADER = "equation,operand_1,operation,operand_2,answer\n"


def test_operands_come_by_operation_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(f"{HEADER}9/1=,9,/,1,9 r0\n1+2=,1,+,2,3\n8/3=,8,/,3,2 r2\n")
    found = read_split(path, GRAMMAR)
    assert list(found) == ["+", "/"]
    assert [part.tolist() for part in found["/"]] == [[9, 8], [1, 3]]
    assert found["+"][0].dtype == np.int64


@pytest.mark.parametrize(
    "rows",
    [
        "",
        "x+1=,x,+,1,?",
        "+1=,,+,1,?",
        "1.5+1=,1.5,+,1,?",
        "-5+1=,-5,+,1,-4",
        "10+1=,10,+,1,11",
        "1+10=,1,+,10,11",
        "3*3=,3,*,3,9",
        "3?3=,3,,3,9",
        "3/0=,3,/,0,?",
    ],
)
def test_what_is_no_equation_of_the_grammar_is_refused(tmp_path, rows):
    path = tmp_path / "train.csv"
    path.write_text(f"{HEADER}{rows}\n")
    with pytest.raises(InvalidParams, match=r"train\.csv .*run dvc repro"):
        read_split(path, GRAMMAR)


@pytest.mark.parametrize("content", [b"", b"equation\n1+1=\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_data_set_is_refused(tmp_path, content):
    path = tmp_path / "test.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidParams, match="is not data of `generate`"):
        read_split(path, GRAMMAR)
