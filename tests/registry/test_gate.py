"""Test the conditions of a promotion."""

import math

import pytest

from registry.exceptions import RegistryError
from registry.gate import Gate, violations

GATE = Gate(max_errors=0, min_margin=0.5)
REPORT = {
    "domain": {"operations": ["+", "-"], "max_operand": 999},
    "complete": True,
    "errors": 0,
    "equations": 2_000_000,
    "minimum_margin": 4.5,
    "decoding_differs_from_pass": 0,
    "graph_differs_from_decoding": 0,
}
SAMPLE = {"complete": False, "sampled": {"error_rate_bound": 3e-6}}


def domain(operations: str, max_operand: int) -> dict:
    return {"domain": {"operations": list(operations), "max_operand": max_operand}}


def test_exact_model_passes():
    assert violations(REPORT, None, GATE) == []
    assert violations(REPORT, REPORT, GATE) == []


@pytest.mark.parametrize(
    ("changes", "gate", "clause"),
    [
        ({"errors": 90}, GATE, "90 errors"),
        ({"minimum_margin": 0.4}, GATE, "minimum margin 0.4"),
        ({"minimum_margin": math.nan}, GATE, "minimum margin nan"),
        ({"graph_differs_from_decoding": 1}, GATE, "1 equations on which"),
        ({"decoding_differs_from_pass": 2}, GATE, "2 equations on which"),
        ({"complete": False}, GATE, "not on its whole domain"),
        (SAMPLE, GATE, "max_error_rate accepts"),
        (SAMPLE, Gate(max_errors=0, max_error_rate=1e-6), "error rate up to 3e-06"),
        (SAMPLE | {"sampled": {"error_rate_bound": math.nan}},
         Gate(max_errors=0, max_error_rate=0.1), "error rate up to nan"),
    ],
)  # fmt: skip
def test_each_violated_condition_is_one_clause(changes, gate, clause):
    (found,) = violations(REPORT | changes, None, gate)
    assert clause in found


def test_sample_passes_where_the_gate_bounds_the_error_rate():
    assert violations(REPORT | SAMPLE, None, Gate(max_errors=0, max_error_rate=1e-5)) == []


def test_margin_is_not_a_condition_if_the_gate_names_none():
    assert violations(REPORT | {"minimum_margin": -1.0}, None, Gate(max_errors=0)) == []


def test_candidate_must_answer_all_that_production_answers():
    (clause,) = violations(REPORT | domain("+", 999), REPORT, GATE)
    assert "does not include Production's" in clause
    (clause,) = violations(REPORT | domain("+-", 99), REPORT, GATE)
    assert "+ - over 0-99" in clause
    assert violations(REPORT | domain("+-*", 9999), REPORT, GATE) == []


def test_candidate_may_not_err_more_than_production():
    lenient = Gate(max_errors=100)
    assert violations(REPORT | {"errors": 5}, REPORT | {"errors": 5}, lenient) == []
    (clause,) = violations(REPORT | {"errors": 6}, REPORT | {"errors": 5}, lenient)
    assert clause == "6 errors, Production has 5"


@pytest.mark.parametrize("missing", ["minimum_margin", "errors", "domain", "complete"])
def test_report_without_a_figure_is_an_error(missing):
    report = {key: value for key, value in REPORT.items() if key != missing}
    with pytest.raises(RegistryError, match=missing):
        violations(report, None, GATE)
