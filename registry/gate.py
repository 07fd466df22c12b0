"""Decide whether a model may go to Production: pure rules over evaluation reports.

`registry.promotion` fetches the reports and applies the rules; `stages.params` validates the
`promote` section of params.yaml by the same `Gate`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.exceptions import RegistryError


class Gate(BaseModel):
    """Hold the `promote` section of params.yaml.

    Attributes:
        max_errors: wrong answers over the domain that a Production model may have.
        min_margin: smallest logit margin of the correct token that is accepted: what keeps an exact
            model exact under another engine's rounding. Not checked if left out.
        max_error_rate: largest bound on the error rate that is accepted of a model whose domain is
            too large to list. Left out, a sampled evaluation is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_errors: int = Field(ge=0)
    min_margin: float | None = None
    max_error_rate: float | None = Field(default=None, gt=0, le=1)


class _Domain(BaseModel):
    operations: tuple[str, ...]
    max_operand: int

    def __str__(self) -> str:
        return f"{' '.join(self.operations)} over 0-{self.max_operand}"


class _Sampled(BaseModel):
    error_rate_bound: float


class _Report(BaseModel):
    """Hold what the rules read of reports/evaluation.json."""

    domain: _Domain
    complete: bool
    errors: int
    equations: int
    minimum_margin: float
    decoding_differs_from_pass: int
    graph_differs_from_decoding: int
    sampled: _Sampled | None = None

    def includes(self, other: "_Report") -> bool:
        """Return whether every equation of the other's domain is in this one's."""
        return (
            set(other.domain.operations) <= set(self.domain.operations)
            and other.domain.max_operand <= self.domain.max_operand
        )


def violations(
    report: Mapping[str, Any], production_report: Mapping[str, Any] | None, gate: Gate
) -> list[str]:
    """Return one clause for each violated condition; an empty list lets the model pass.

    Args:
        report: reports/evaluation.json of the version to promote.
        production_report: that of the present Production, None if there is none.
        gate: the conditions of params.yaml.

    Raises:
        RegistryError: a report is not one of `stages.evaluate`.
    """
    candidate = _parse(report)
    clauses = []
    if not candidate.complete:
        clauses += _sample_violations(candidate, gate)
    if candidate.errors > gate.max_errors:
        clauses.append(f"{candidate.errors:,} errors, promote.max_errors is {gate.max_errors:,}")
    differing = candidate.decoding_differs_from_pass + candidate.graph_differs_from_decoding
    if differing:
        clauses.append(f"{differing:,} equations on which pass, decoding and graph differ")
    # Negated, since a margin that is NaN compares as false.
    if gate.min_margin is not None and not candidate.minimum_margin >= gate.min_margin:
        clauses.append(
            f"minimum margin {candidate.minimum_margin}, promote.min_margin is {gate.min_margin}"
        )
    if production_report is None:
        return clauses
    production = _parse(production_report)
    if not candidate.includes(production):
        clauses.append(
            f"domain {candidate.domain}, which does not include Production's ({production.domain})"
        )
    elif candidate.errors > production.errors:
        clauses.append(f"{candidate.errors:,} errors, Production has {production.errors:,}")
    return clauses


def _sample_violations(candidate: _Report, gate: Gate) -> list[str]:
    if candidate.sampled is None or gate.max_error_rate is None:
        clause = f"evaluated on {candidate.equations:,} equations and not on its whole domain"
        hint = "" if candidate.sampled is None else " (promote.max_error_rate accepts a sample)"
        return [clause + hint]
    bound = candidate.sampled.error_rate_bound
    if not bound <= gate.max_error_rate:
        return [f"error rate up to {bound:g}, promote.max_error_rate is {gate.max_error_rate:g}"]
    return []


def _parse(report: Mapping[str, Any]) -> _Report:
    try:
        return _Report.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"the evaluation report is not valid: {key}: {first['msg']}"
        raise RegistryError(message, "run `dvc repro` to evaluate and register again") from error
