"""Checking answers: counts, the error rate over distinct questions, drift, mispredictions."""

import json
import random
import threading

import pytest

from arithmetic.formats import Answer, classify
from arithmetic.grammar import Equation, Grammar, solve
from arithmetic.input_profile import profile
from serving.metrics import Metrics
from serving.monitoring import DRIFT_BLOCK, WINDOW, Monitor, VersionStats
from tests.serving.conftest import wait_until

GRAMMAR = Grammar(("+", "-"), 99)
ALL = [Equation(a, o, b) for a in range(100) for o in "+-" for b in range(100)]


def right(equation: Equation) -> Answer:
    return Answer(solve(equation), True, True, "")


def wrong(equation: Equation) -> Answer:
    return Answer(str(int(solve(equation)) + 1), True, True, "")


@pytest.fixture
def stats():
    return VersionStats("7", "d" * 64, GRAMMAR)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def monitor(metrics, tmp_path):
    monitor = Monitor(metrics, tmp_path / "wrong.jsonl", 20_000, lambda _: None)
    monitor.start()
    yield monitor
    monitor.stop()


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
    monitor.submit(stats, equations, results)
    wait_until(lambda: monitor.waiting == 0)
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
        monitor.submit(stats, [equation, ALL[0]], [wrong(equation), right(ALL[0])])
    wait_until(lambda: monitor.waiting == 0)
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
    entered, release = threading.Event(), threading.Event()

    def on_checked(_):
        entered.set()
        release.wait(10)

    monitor = Monitor(metrics, tmp_path / "wrong.jsonl", 100, on_checked)
    monitor.start()
    batch = ALL[:60], [right(e) for e in ALL[:60]]
    monitor.submit(stats, *batch)
    assert entered.wait(10)
    monitor.submit(stats, *batch)
    assert stats.report().unchecked == 60
    assert metrics.registry.get_sample_value("arithmetic_unchecked_total", {"version": "7"}) == 60
    release.set()
    wait_until(lambda: monitor.waiting == 0)
    monitor.submit(stats, *batch)
    monitor.stop()
    assert stats.report().checked == 120


def test_the_error_rate_is_over_distinct_questions(stats):
    def add_wrong(equation):
        expected = solve(equation)
        stats.add(equation, classify(wrong(equation), expected, equation.operation, GRAMMAR))

    for equation in ALL[:199]:
        stats.add(equation, None)
    for _ in range(1000):
        add_wrong(ALL[199])
    assert stats.rejection_reason(0.01, 200) is None  # one wrong question of 200
    for equation in ALL[200:203]:
        add_wrong(equation)
    assert "4 of its latest 203" in str(stats.rejection_reason(0.01, 200))
    assert stats.rejection_reason(0.01, 204) is None
    assert stats.rejection_reason(1.0, 1) is None
    for equation in ALL[203:253]:
        stats.add_failure(equation)
    assert "54 of its latest 253" in str(stats.rejection_reason(0.01, 50))
    for equation in ALL[253 : 253 + WINDOW]:  # which forgets the questions before
        stats.add(equation, None)
    assert stats.rejection_reason(0.0, 50) is None


def test_drift_is_small_for_the_training_data_and_large_for_other_inputs(monitor, stats, metrics):
    reference = profile({o: GRAMMAR.equations(o) for o in "+-"}, GRAMMAR)
    monitor.set_reference(GRAMMAR, reference)
    assert monitor.drift() is None
    rng = random.Random(0)
    monitor.submit(stats, sample := rng.choices(ALL, k=4 * DRIFT_BLOCK), [*map(right, sample)])
    wait_until(lambda: monitor.waiting == 0)
    assert monitor.drift() is not None
    assert max(monitor.drift().values()) < 0.1
    small = [Equation(a, "+", b) for a in range(10) for b in range(10)] * 60
    monitor.submit(stats, small, [*map(right, small)])
    wait_until(lambda: monitor.waiting == 0)
    assert monitor.drift()["operation"] > 0.25
    assert monitor.drift()["operand_1_digits"] > 0.25
    value = metrics.registry.get_sample_value(
        "arithmetic_input_drift_psi", {"feature": "operation"}
    )
    assert value == monitor.drift()["operation"]
    monitor.set_reference(GRAMMAR, reference)
    assert monitor.drift()
    monitor.set_reference(Grammar(("+",), 9), {})  # another model's training data
    assert monitor.drift() is None
    monitor.submit(stats, small, [*map(right, small)])  # of the grammar before
    wait_until(lambda: monitor.waiting == 0)
    assert monitor.drift() is None
