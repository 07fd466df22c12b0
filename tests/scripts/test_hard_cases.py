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


def add(tmp_path, source, grammar=Grammar(("+", "-"), 999)):  # noqa: B008
    return hard_cases.add(source, tmp_path / "hard_cases.csv", grammar)


def test_equations_are_added_once_in_order(tmp_path):
    (tmp_path / "hard_cases.csv").write_text("equation\n1+1=\n", encoding="utf-8")
    source = write(tmp_path / "m.jsonl", "7-9=", "1+1=", "007-9=")
    assert add(tmp_path, source) == (1, 2, [])
    assert add(tmp_path, source) == (0, 2, [])
    assert (tmp_path / "hard_cases.csv").read_text() == "equation\n1+1=\n7-9=\n"


def test_rotated_file_comes_first_and_digits_are_those_of_the_params(tmp_path):
    write(tmp_path / "m.jsonl.1", "1+2=")
    add(tmp_path, write(tmp_path / "m.jsonl", "123456789+1="), Grammar(("+",), 999_999_999))
    assert (tmp_path / "hard_cases.csv").read_text() == "equation\n1+2=\n123456789+1=\n"


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
def test_unusable_lines_are_reported_and_the_others_added(tmp_path, line, reason):
    source = write(tmp_path / "m.jsonl", "1+2=")
    source.write_text(f"{line}\n{source.read_text()}", encoding="utf-8")
    added, _, (skipped,) = add(tmp_path, source)
    assert added == 1
    assert skipped.startswith(f"{source}:1: ")
    assert reason in skipped


def test_missing_file_has_a_hint_and_a_csv_with_other_columns_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="cannot read") as error:
        add(tmp_path, tmp_path / "absent.jsonl")
    assert "FROM=" in error.value.hint
    (tmp_path / "hard_cases.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="columns"):
        add(tmp_path, write(tmp_path / "m.jsonl", "1+2="))
    assert (tmp_path / "hard_cases.csv").read_text() == "a,b\n1,2\n"
