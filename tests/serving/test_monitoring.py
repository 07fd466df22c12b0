"""Checking answers: counts, the error rate over distinct questions, drift, mispredictions."""

import json
import random

import pytest

from arithmetic.formats import Answer
from arithmetic.grammar import Equation, Grammar, solve
from arithmetic.input_profile import profile
from serving.metrics import Metrics
from serving.monitoring import DRIFT_BLOCK, WINDOW, Drift, Monitor, VersionStats
from tests.serving.conftest import wait_until

GRAMMAR = Grammar(("+", "-"), 99)
ALL = [Equation(a, o, b) for a in range(100) for o in "+-" for b in range(100)]


def right(equation: Equation) -> Answer:
    return Answer(solve(equation), True, True, "")


def wrong(equation: Equation) -> Answer:
    return Answer(str(int(solve(equation)) + 1), True, True, "")


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def stats(metrics):
    reference = profile({o: GRAMMAR.equations(o) for o in "+-"}, GRAMMAR)
    return VersionStats("7", "d" * 64, GRAMMAR, Drift(GRAMMAR, reference, metrics.drift))


@pytest.fixture
def monitor(metrics, tmp_path):
    monitor = Monitor(metrics, tmp_path / "wrong.jsonl", 100_000)
    monitor.start()
    yield monitor
    monitor.stop()


def check(monitor, stats, equations, results):
    monitor.submit(stats, equations, results)
    wait_until(lambda: monitor.waiting == 0)


def test_answers_are_counted_by_their_outcome(monitor, stats, metrics):
    equations = ALL[:6]
    results = [
        right(equations[0]),
        wrong(equations[1]),
        Answer("1+", False, True, ""),
        Answer(solve(equations[3]), True, False, ""),
        Answer("999", True, True, ""),
        RuntimeError("raised"),
    ]
    monitor.submit(stats, [ALL[0]], [None])  # a bug in one check does not end the others
    check(monitor, stats, equations, results)
    report = stats.report()
    assert (report.checked, report.wrong, report.failed) == (5, 4, 1)
    assert (report.hallucination, report.infinite_generation, report.out_of_range) == (1, 1, 1)
    assert report.error_rate == 0.8
    sample = metrics.registry.get_sample_value
    assert sample("arithmetic_checked_total", {"version": "7", "operation": "+"}) == 5
    assert sample("arithmetic_wrong_total", {"version": "7", "operation": "+"}) == 4
    assert sample("arithmetic_failed_total", {"version": "7"}) == 1


def test_wrong_answers_are_written_once_as_json_lines(monitor, stats, tmp_path):
    equation = Equation(7, "-", 12)
    for _ in range(3):
        check(monitor, stats, [equation, ALL[0]], [wrong(equation), right(ALL[0])])
    (line,) = (tmp_path / "wrong.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "equation": "7-12=",
        "answer": "-4",
        "expected": "-5",
        "version": "7",
        "model_digest": "d" * 64,
    }


def test_a_full_queue_leaves_answers_unchecked_and_never_waits(metrics, stats, tmp_path):
    monitor = Monitor(metrics, tmp_path / "wrong.jsonl", 100)  # not started yet
    for _ in range(2):
        monitor.submit(stats, ALL[:60], [right(equation) for equation in ALL[:60]])
    assert stats.report().unchecked == 60
    assert metrics.registry.get_sample_value("arithmetic_unchecked_total", {"version": "7"}) == 60
    monitor.start()
    monitor.stop()
    assert stats.report().checked == 60


def test_the_error_rate_is_over_distinct_questions(stats):
    for equation in ALL[:199]:
        stats.add_question(equation, is_wrong=False)
    for _ in range(1000):
        stats.add_question(ALL[199], is_wrong=True)
    assert stats.rejection_reason(0.01, 200) is None  # one wrong question of 200
    for equation in ALL[200:203]:
        stats.add_question(equation, is_wrong=True)
    assert "4 of its latest 203" in str(stats.rejection_reason(0.01, 200))
    assert stats.rejection_reason(0.01, 204) is None
    assert stats.rejection_reason(1.0, 1) is None
    for equation in ALL[203 : 203 + WINDOW]:  # which forgets the questions before
        stats.add_question(equation, is_wrong=False)
    assert stats.rejection_reason(0.0, 50) is None


def test_drift_is_small_for_the_training_data_and_large_for_other_inputs(monitor, stats, metrics):
    assert not stats.drift.psi
    sample = random.Random(0).choices(ALL, k=4 * DRIFT_BLOCK)
    check(monitor, stats, sample, [*map(right, sample)])
    assert max(stats.drift.psi.values()) < 0.1
    small = [Equation(a, "+", b) for a in range(10) for b in range(10)] * 60
    check(monitor, stats, small, [*map(right, small)])
    for feature in ("operation", "operand_1_digits"):
        value = metrics.registry.get_sample_value(
            "arithmetic_input_drift_psi", {"feature": feature}
        )
        assert value == stats.drift.psi[feature] > 0.25
