"""Wrong answers of a service become training data."""

import json

import pytest

from arithmetic.errors import UserError
from arithmetic.grammar import Grammar
from scripts import hard_cases


def write(path, *equations):
    lines = [json.dumps({"time": "now", "equation": e, "answer": "1"}) for e in equations]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "hard_cases.csv"
    path.write_text("equation\n1+1=\n", encoding="utf-8")
    return path


def add(source, target, max_operand=999):
    return hard_cases.add(source, target, Grammar(("+", "-"), max_operand))


def test_equations_are_added_once_in_order_a_rotated_file_first(tmp_path, target):
    source = write(tmp_path / "m.jsonl", "7-9=", "1+1=", "007-9=", "123456789+1=")
    write(tmp_path / "m.jsonl.1", "1+2=")
    assert add(source, target, 999_999_999) == (3, 4)
    assert add(source, target, 999_999_999) == (0, 4)
    assert target.read_text() == "equation\n1+1=\n1+2=\n7-9=\n123456789+1=\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"equation": "1+', "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"equation": 5}', "not a JSON object"),
        ('{"equation": "1000+1="}', "has more than 3 digits"),
        ('{"equation": "2*3="}', "'*'"),
    ],
)
def test_unusable_lines_are_reported_and_the_others_added(tmp_path, target, line, reason, capsys):
    source = write(tmp_path / "m.jsonl", "1+2=")
    source.write_text(f"{line}\n{source.read_text()}", encoding="utf-8")
    assert add(source, target) == (1, 2)
    (skipped,) = capsys.readouterr().err.splitlines()
    assert skipped.startswith(f"skipped: {source}:1: ")
    assert reason in skipped


def test_missing_file_has_a_hint_and_a_csv_with_other_columns_is_left_alone(tmp_path, target):
    with pytest.raises(UserError, match="cannot read") as error:
        add(tmp_path / "absent.jsonl", target)
    assert "FROM=" in error.value.hint
    target.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="columns"):
        add(write(tmp_path / "m.jsonl", "1+2="), target)
    assert target.read_text() == "a,b\n1,2\n"
