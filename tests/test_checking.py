"""Answers are judged as the evaluation judges them, off the hot path and within bounds."""

import gc
import json
import random
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.engine import Engine
from arithmetic.grammar import Equation, Grammar, solve
from arithmetic.judging import Verdict
from arithmetic.layouts import Answer
from registry import inputs
from registry.pull import Pulled
from serving.background import Background
from serving.checking import Checker, Given
from serving.drift import BLOCK, BLOCKS, Drift, index
from serving.hard_cases import HardCases
from serving.live import Live
from serving.metrics import Metrics
from serving.selftest import equations
from serving.settings import Settings
from serving.tally import QUESTIONS_KEPT, Tally
from stages import tally as judged
from stages.certify import Equations
from tests.following_fixtures import EXACT, scrambled

SIGNED = Grammar(("+", "-"), 999)
FOUR = Grammar(("+", "-", "*", "/"), 999)
WRONG = Verdict(True, False, False, False)


@pytest.mark.parametrize("strength", [0.1, 0.3, 1.0])
def test_counts_are_those_of_the_evaluation(tmp_path: Path, strength: float) -> None:
    """One meaning of wrong, hallucination, infinite and out of range in metrics and /metrics."""
    folder = scrambled(tmp_path / "bundle", 1, strength)
    engine, rng = Engine(folder), np.random.default_rng(1)
    grammar = load_config(folder).grammar
    for operation in grammar.operations:
        a, b = rng.integers(0, 1000, (2, 500))
        asked = Equations(operation, a, b)
        prompts = layouts.prompts(operation, a, b, 3).astype(np.int64)
        generated = engine.generate(operation, prompts)
        evaluated = judged.Tally()
        expected, _ = judged.exact_answers(asked)
        evaluated.judge(asked, generated, expected, grammar)
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        questions = [Equation(x, operation, y) for x, y in pairs]
        tally = Tally("7", "d")
        checking = checker(Metrics(), tmp_path)
        checking.put(Given(tally, grammar, questions, engine.answer(questions)))
        checking.start()
        checking.stop()
        assert tally.checked == 500
        assert tally.wrong == evaluated.errors.total() > 0
        assert tally.hallucinations == evaluated.hallucinations
        assert tally.infinite_generation == evaluated.infinite_generation
        assert tally.out_of_range == evaluated.out_of_range


def test_the_self_test_is_fixed_and_within_the_grammar() -> None:
    for grammar in (SIGNED, FOUR, Grammar(("/",), 9)):
        asked = equations(grammar)
        assert asked == equations.__wrapped__(grammar)
        assert {equation.operation for equation in asked} == set(grammar.operations)
        assert all(grammar.parse(str(equation)) == equation for equation in asked)


def test_one_question_repeated_cannot_bring_a_version_down() -> None:
    tally = Tally("1", "d")
    for _ in range(5000):
        tally.add(Equation(1, "+", 1), WRONG)
    assert tally.excess(0.01, 100) is None
    for n in range(99):
        tally.add(Equation(n, "-", 1), None)
    assert tally.excess(0.01, 100) is None, "1 of 100 is the limit, not over it"
    tally.add(Equation(500, "-", 1), WRONG)
    assert "2 of its latest 101 different questions" in (tally.excess(0.01, 100) or "")
    assert (tally.checked, tally.wrong) == (5100, 5001)


def test_the_error_rate_is_that_of_the_latest_questions() -> None:
    tally = Tally("1", "d")
    for n in range(QUESTIONS_KEPT):
        tally.add(Equation(n, "+", 1), WRONG)
    assert tally.excess(0.5, 10)
    for n in range(QUESTIONS_KEPT):
        tally.add(Equation(n, "-", 1), None)
    assert tally.excess(0, 10) is None


def test_what_does_not_fit_is_refused_and_a_bug_does_not_end_the_thread() -> None:
    go, done = threading.Event(), list[int]()

    def work(item: int) -> None:
        assert go.wait(10)
        if item == 1:
            raise ValueError("one")
        done.append(item)

    background: Background[int] = Background("test", work, limit=10)
    background.start()
    assert [background.put(n, 4) for n in range(4)] == [True, True, False, False]
    assert background.waiting == 8
    go.set()
    background.stop(10)
    assert (done, background.waiting) == ([0], 0)


def checker(metrics: Metrics, tmp_path: Path, limit: int = 10_000) -> Checker:
    kept = HardCases(tmp_path / "hard-cases.jsonl", 10)
    return Checker(metrics, limit, Drift(metrics), kept, lambda tally: None)


def test_counts_reach_the_metrics_by_version_and_operation(tmp_path: Path) -> None:
    metrics = Metrics()
    checking = checker(metrics, tmp_path, limit=5)
    tally = Tally("7", "d")
    given = [
        (Equation(1, "+", 1), Answer("2", True, True, "")),
        (Equation(2, "+", 1), Answer("2", True, True, "")),
        (Equation(3, "-", 1), Answer("2-", False, True, "")),
        (Equation(4, "-", 1), Answer("3", True, False, "")),
        (Equation(5, "-", 1), Answer("9999", True, True, "")),
    ]
    checking.put(Given(tally, SIGNED, *zip(*given, strict=True)))  # type: ignore[arg-type]
    checking.put(Given(tally, SIGNED, *zip(*given[:1], strict=True)))  # type: ignore[arg-type]
    checking.start()
    checking.stop()
    text = metrics.exposition().decode()
    for line in (
        'arithmetic_checked_total{operation="+",version="7"} 2.0',
        'arithmetic_checked_total{operation="-",version="7"} 3.0',
        'arithmetic_wrong_total{operation="+",version="7"} 1.0',
        'arithmetic_wrong_total{operation="-",version="7"} 3.0',
        'arithmetic_hallucinations_total{version="7"} 1.0',
        'arithmetic_infinite_generations_total{version="7"} 1.0',
        'arithmetic_out_of_range_total{version="7"} 1.0',
        'arithmetic_unchecked_total{version="7"} 1.0',
    ):
        assert line in text
    report = tally.report()
    assert (report.checked, report.wrong, report.unchecked) == (5, 4, 1)
    lines = (tmp_path / "hard-cases.jsonl").read_text().splitlines()
    assert [json.loads(line)["equation"] for line in lines] == ["2+1=", "3-1=", "4-1=", "5-1="]


def test_hard_cases_are_bounded_and_the_latest_are_kept(tmp_path: Path) -> None:
    kept, tally = HardCases(tmp_path / "x" / "cases.jsonl", 10), Tally("7", "d")
    for n in [*range(35), 34]:
        equation = Equation(n, "+", 1)
        kept.keep(tally, equation, Answer("0", True, True, ""), solve(equation))
    files = sorted(kept.path.parent.iterdir())
    assert [file.name for file in files] == ["cases.jsonl", "cases.jsonl.1"]
    entries = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {entry["equation"] for entry in entries} == {f"{n}+1=" for n in range(20, 35)}
    assert len(entries) == 15
    assert set(entries[0]) == {
        "equation", "answer", "expected", "version", "bundle_sha256", "time"
    }  # fmt: skip


def test_hard_cases_stay_bounded_through_restarts(tmp_path: Path) -> None:
    path, tally = tmp_path / "cases.jsonl", Tally("7", "d")
    for n in range(40):  # a process for each
        HardCases(path, 10).keep(tally, Equation(n, "+", 1), Answer("0", True, True, ""), "1")
    assert len(path.read_text().splitlines()) == 10
    assert len(path.with_name("cases.jsonl.1").read_text().splitlines()) == 10


def test_questions_on_which_a_version_raises_are_wrong_ones(tmp_path: Path) -> None:
    """Production's and a canary's too: else one that always raises would never be taken out."""
    metrics = Metrics()
    checking = checker(metrics, tmp_path)
    tally = Tally("7", "d")
    checking.failures(tally, SIGNED)([Equation(n, "+", 1) for n in range(60)])
    checking.start()
    checking.stop()
    assert (tally.failed, tally.checked) == (60, 0)
    assert "60 of its latest 60" in (tally.excess(0.01, 50) or "")
    assert b'arithmetic_failed_total{version="7"} 60.0' in metrics.exposition()


def test_a_disk_that_takes_no_hard_cases_is_said_once(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = HardCases(tmp_path / "file" / "cases.jsonl", 10)
    for n in range(3):
        wrong = Answer("0", True, True, "")
        kept.keep(Tally("7", "d"), Equation(n, "+", 1), wrong, "1")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "hard cases are not kept"
    ]


@pytest.mark.parametrize("grammar", [SIGNED, FOUR, Grammar(("+",), 9)])
def test_a_profile_counts_every_question_once_a_feature(tmp_path: Path, grammar: Grammar) -> None:
    questions = {name: grammar.equations(name) for name in grammar.operations}
    everything = inputs.profile(questions, grammar)
    total = sum(grammar.count(name) for name in grammar.operations)
    assert {feature: sum(bins.values()) for feature, bins in everything.items()} == dict.fromkeys(
        everything, total
    )
    for feature, bins in inputs.uniform(grammar).items():
        assert index(everything[feature], bins) < 0.001, "uniform is every equation alike"
    inputs.write(tmp_path / "profile.json", everything)
    assert inputs.read((tmp_path / "profile.json").read_bytes(), grammar) == everything


def test_bins_are_where_they_are_said_to_be() -> None:
    found = inputs.profile({"+": (np.array([0, 9, 10, 99, 100, 999]), np.zeros(6, int))}, SIGNED)
    assert found["operand_1_digits"] == {"1": 2, "2": 2, "3": 2}
    assert found["operand_1_magnitude"]["0"] == 4
    assert found["operand_1_magnitude"]["1"] == found["operand_1_magnitude"]["9"] == 1
    assert found["operand_2_digits"] == {"1": 6, "2": 0, "3": 0}
    assert found["operation"] == {"+": 6, "-": 0}


def drawn(count: int, largest: int, operations: str) -> list[Equation]:
    rng = random.Random(1)
    return [
        Equation(rng.randint(0, largest), rng.choice(operations), rng.randint(0, largest))
        for _ in range(count)
    ]


def test_drift_is_small_on_the_same_questions_and_large_on_others() -> None:
    metrics = Metrics()
    drift = Drift(metrics)
    drift.compare_with(SIGNED, inputs.uniform(SIGNED), "every equation alike")
    drift.add(drawn(4 * BLOCK, 999, "+-"), SIGNED)
    assert set(drift.psi) == {
        "operation", "operand_1_digits", "operand_2_digits",
        "operand_1_magnitude", "operand_2_magnitude",
    }  # fmt: skip
    assert max(drift.psi.values()) < 0.05
    for _ in range(BLOCKS):
        drift.add(drawn(BLOCK, 99, "+"), SIGNED)
    assert min(drift.psi.values()) > 0.25
    assert 'arithmetic_input_drift_psi{feature="operation"}' in metrics.exposition().decode()
    assert drift.report().inputs == BLOCK * BLOCKS, "only the latest count"
    drift.add(drawn(BLOCK, 9, "*"), FOUR)
    assert drift.report().inputs == BLOCK * BLOCKS, "another grammar's questions are left out"


def test_the_index_is_that_of_the_textbook() -> None:
    """Of 50:50 against 80:20: 0.3 ln 1.6 - 0.3 ln 0.4 = 0.4159."""
    assert index({"a": 50_000, "b": 50_000}, {"a": 80_000, "b": 20_000}) == pytest.approx(
        0.4159, abs=1e-3
    )


def test_a_version_that_was_replaced_is_freed(tmp_path: Path) -> None:
    """Held in a circle it would stay for ever, since what is loaded is frozen out of the
    collector's sight: a megabyte or more for every promotion."""
    settings = Settings(mlflow_tracking_uri="http://127.0.0.1:1", model_cache=tmp_path)
    live = Live(settings, None, Metrics())
    pulled = Pulled("arithmetic-lm", "1", EXACT, bundle.digest(EXACT))
    gc.disable()
    try:
        live._take(pulled)()
        assert live.served is not None
        first = weakref.ref(live.served), weakref.ref(live.served.engine)
        live._take(pulled)()
        assert [reference() for reference in first] == [None, None]
    finally:
        gc.enable()
        gc.unfreeze()
