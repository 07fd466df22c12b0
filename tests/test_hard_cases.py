"""What services answered wrongly becomes the CSV that `generate` reads, with its provenance."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from scripts.hard_cases import COLUMNS, UnreadableHardCases, collect
from serving.hard_cases import HardCases
from serving.tally import Tally
from stages.generate import read_hard_cases

ROOT = Path(__file__).resolve().parents[1]


def answered_wrongly(path: Path, numbers: range, version: str = "7", limit: int = 10) -> None:
    """Let a service have kept `n+1=` for each number."""
    kept = HardCases(path, limit)
    for n in numbers:
        wrong = Answer("0", True, True, "")
        kept.keep(Tally(version, "d" * 64), Equation(n, "+", 1), wrong, "?")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_equation_once_with_where_it_comes_from(tmp_path: Path) -> None:
    """Both halves of a service's file, several services, and the right answer computed anew."""
    first, second, target = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "hard-cases.csv"))
    answered_wrongly(first, range(15))
    answered_wrongly(second, range(10, 20), "8")
    assert collect([first, second], target) == (20, 20)
    found = rows(target)
    assert tuple(found[0]) == COLUMNS
    assert [row["equation"] for row in found] == [f"{n}+1=" for n in range(20)]
    assert [row["expected"] for row in found] == [str(n + 1) for n in range(20)]
    assert (found[0]["source"], found[0]["version"]) == ("a.jsonl.1:1", "7")
    assert (found[19]["source"], found[19]["version"]) == ("b.jsonl:10", "8")
    assert collect([first], target) == (0, 20), "what was there stays"
    assert rows(target) == found


def test_the_repository_s_own_list_can_be_added_to(tmp_path: Path) -> None:
    """It has the one column that `generate` needs, and `generate` reads what comes of it."""
    target = tmp_path / "hard_cases.csv"
    shutil.copy(ROOT / "hard_cases.csv", target)
    with target.open("a") as file:
        file.write("3+1=\n")
    before = len(rows(target))
    answered_wrongly(tmp_path / "a.jsonl", range(5))
    assert collect([tmp_path / "a.jsonl"], target) == (4, before + 4)
    assert set(read_hard_cases(target)) >= {f"{n}+1=" for n in range(5)}


def test_a_line_that_was_cut_off_is_left_out_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    path, target = tmp_path / "a.jsonl", tmp_path / "hard-cases.csv"
    answered_wrongly(path, range(3))
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert collect([path], target) == (2, 2)
    path.write_text(whole.replace("1+1=", "1+1"))
    with pytest.raises(UnreadableHardCases, match=r"line 2 of .*a\.jsonl is not"):
        collect([path], target)
    assert len(rows(target)) == 2, "nothing is lost"
    target.write_text("question\n1+1=\n")
    with pytest.raises(UnreadableHardCases, match="has other columns"):
        collect([path], target)


@pytest.mark.parametrize(
    ("source", "says"), [("", "say which file"), ("nowhere.jsonl", "cannot be read")]
)
def test_the_command_says_in_one_sentence_what_is_wrong(source: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.hard_cases", source],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
