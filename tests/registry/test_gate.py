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


@pytest.mark.parametrize(
    ("changes", "gate", "clause"),
    [
        ({}, GATE, ""),
        ({"errors": 90}, GATE, "90 errors"),
        ({"minimum_margin": 0.4}, GATE, "minimum margin 0.4"),
        ({"minimum_margin": math.nan}, GATE, "minimum margin nan"),
        ({"minimum_margin": -1.0}, Gate(max_errors=0), ""),
        ({"graph_differs_from_decoding": 1}, GATE, "1 equations on which"),
        ({"decoding_differs_from_pass": 2}, GATE, "2 equations on which"),
        ({"complete": False}, GATE, "not on its whole domain"),
        (SAMPLE, GATE, "max_error_rate is None"),
        (SAMPLE, Gate(max_errors=0, max_error_rate=1e-5), ""),
        (SAMPLE, Gate(max_errors=0, max_error_rate=1e-6), "error rate up to 3e-06"),
        (SAMPLE | {"sampled": {"error_rate_bound": math.nan}},
         Gate(max_errors=0, max_error_rate=0.1), "error rate up to nan"),
    ],
)  # fmt: skip
def test_each_violated_condition_is_one_clause(changes, gate, clause):
    clauses = violations(REPORT | changes, None, gate)
    assert len(clauses) == bool(clause)
    assert clause in "".join(clauses)


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        (domain("+", 999), "does not include Production's"),
        (domain("+-", 99), "+ - over 0-99"),
        (domain("+-*", 9999), ""),
        ({"errors": 5}, ""),
        ({"errors": 6}, "6 errors, Production has 5"),
    ],
)
def test_candidate_answers_all_that_production_does_without_more_errors(changes, clause):
    production = REPORT | {"errors": 5}
    clauses = violations(production | changes, production, Gate(max_errors=100))
    assert len(clauses) == bool(clause)
    assert clause in "".join(clauses)


@pytest.mark.parametrize("missing", ["minimum_margin", "errors", "domain", "complete"])
def test_report_without_a_figure_is_an_error(missing):
    report = {key: value for key, value in REPORT.items() if key != missing}
    with pytest.raises(RegistryError, match=missing):
        violations(report, None, GATE)
