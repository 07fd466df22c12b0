"""Decide whether a model may go to Production, by its evaluation and the gate of params.yaml.

`registry.promotion` fetches the reports; `stages.params` validates its params by the same `Gate`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arithmetic.artifacts import GrammarConfig
from arithmetic.errors import InvalidParamsError
from registry.dvc_lock import read_yaml
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


class _Report(BaseModel):
    """Hold what the rules read of reports/evaluation.json."""

    domain: GrammarConfig
    complete: bool
    errors: int
    equations: int
    minimum_margin: float
    decoding_differs_from_pass: int
    graph_differs_from_decoding: int
    sampled: dict[str, float] = {}


def read_gate(root: Path) -> Gate:
    """Return the `promote` section of `root/params.yaml`; raise InvalidParamsError."""
    path = root / "params.yaml"
    try:
        return Gate.model_validate(read_yaml(path).get("promote"))
    except ValidationError as error:
        message = f"promote in {path} is not valid: {_first(error)}"
        raise InvalidParamsError(message, "correct it") from error


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
    # Conditions are negated, since a figure that is NaN compares as false.
    bound = candidate.sampled.get("error_rate_bound", math.inf)
    if not candidate.complete and not bound <= (gate.max_error_rate or 0):
        clauses.append(
            f"evaluated on {candidate.equations:,} equations and not on its whole domain: error "
            f"rate up to {bound:g}, promote.max_error_rate is {gate.max_error_rate}"
        )
    if candidate.errors > gate.max_errors:
        clauses.append(f"{candidate.errors:,} errors, promote.max_errors is {gate.max_errors:,}")
    differing = candidate.decoding_differs_from_pass + candidate.graph_differs_from_decoding
    if differing:
        clauses.append(f"{differing:,} equations on which pass, decoding and graph differ")
    margin = candidate.minimum_margin
    if gate.min_margin is not None and not margin >= gate.min_margin:
        clauses.append(f"minimum margin {margin}, promote.min_margin is {gate.min_margin}")
    if production_report is None:
        return clauses
    production = _parse(production_report)
    ours, theirs = candidate.domain, production.domain
    if not {*theirs.operations} <= {*ours.operations} or theirs.max_operand > ours.max_operand:
        domains = [f"{' '.join(d.operations)} over 0-{d.max_operand}" for d in (ours, theirs)]
        clauses.append("domain {}, which does not include Production's ({})".format(*domains))
    elif candidate.errors > production.errors:
        clauses.append(f"{candidate.errors:,} errors, Production has {production.errors:,}")
    return clauses


def _parse(report: Mapping[str, Any]) -> _Report:
    try:
        return _Report.model_validate(report)
    except ValidationError as error:
        message = f"the evaluation report is not valid: {_first(error)}"
        raise RegistryError(message, "run `dvc repro` to evaluate and register again") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
