"""When a model may go to Production: pure rules over what evaluations found.

Knows nothing of MLflow; `registry.promote` fetches the certificates and applies these rules, and
`stages.params` validates the `promote` section of params.yaml with the same `Gate`.
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from arithmetic.errors import InvalidEquation, Problem
from arithmetic.grammar import Grammar


class Gate(BaseModel):
    """The `promote` section of params.yaml.

    Attributes:
        max_errors: wrong answers over the whole domain that a Production model may have.
        min_margin: smallest lead, in logits, of the right token over its best rival anywhere in the
            domain; what makes an exact model stay exact under another engine's rounding. Not asked
            for if left out.
        max_error_rate: a domain too large to list is certified by a sample, which bounds the error
            rate; the largest bound that is accepted. Left out, samples are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_errors: int = Field(ge=0)
    min_margin: float | None = None
    max_error_rate: float | None = Field(default=None, gt=0, le=1)


@dataclass(frozen=True)
class Certificate:
    """What `metrics/evaluation.json` says of one bundle.

    Attributes:
        bundle_sha256: the bundle it speaks of.
        grammar: the domain.
        complete: whether every equation of the domain was judged.
        equations, errors: how many were judged, and how many of those are wrong.
        errors_by_operation: the errors of each operation.
        failures: equations that fail; all of them only if there are as many as `errors`.
        smallest_margin: in logits, over the whole domain.
        error_rate_at_most: where not complete, what the sample says of the whole domain.
        disagreements: decoded equations on which the serving graph or the pass differs from
            PyTorch's decoding.
    """

    bundle_sha256: str
    grammar: Grammar
    complete: bool
    equations: int
    errors: int
    errors_by_operation: dict[str, int]
    failures: tuple[str, ...]
    smallest_margin: float
    disagreements: int = 0
    error_rate_at_most: float | None = None

    @property
    def domain(self) -> str:
        """The domain as a person reads it: `+ - over 0-999`."""
        return f"{' '.join(self.grammar.operations)} over 0-{self.grammar.max_operand}"

    def includes(self, other: "Certificate") -> bool:
        """Whether every equation of the other's domain is in this one's."""
        return (
            set(other.grammar.operations) <= set(self.grammar.operations)
            and other.grammar.max_operand <= self.grammar.max_operand
        )

    def errors_within(self, grammar: Grammar) -> tuple[int, int]:
        """The fewest and the most errors inside a smaller domain; equal when they are known.

        Counts exist for each operation. For smaller operands the list of failures tells, if it is
        complete; if it was cut, what it shows is the least and the operation's count the most.
        """
        most = sum(self.errors_by_operation.get(name, 0) for name in grammar.operations)
        if grammar.max_operand == self.grammar.max_operand:
            return most, most
        listed = sum(_is_in(grammar, equation) for equation in self.failures)
        if len(self.failures) == self.errors:
            return listed, listed
        return listed, most


def read_certificate(content: bytes) -> Certificate:
    """`metrics/evaluation.json` as a Certificate; raises Problem if it is something else."""
    try:
        found: dict[str, Any] = json.loads(content)
        domain = found["domain"]
        return Certificate(
            bundle_sha256=str(found["bundle_sha256"]),
            grammar=Grammar(tuple(domain["operations"]), int(domain["max_operand"])),
            complete=found["complete"] is True,
            equations=int(found["equations"]),
            errors=int(found["errors"]),
            errors_by_operation={
                str(name): int(counts["errors"]) for name, counts in found["by_operation"].items()
            },
            failures=tuple(str(failure["equation"]) for failure in found["first_failures"]),
            smallest_margin=float(found["smallest_margin"]),
            disagreements=int(found["graph_differs_from_decoding"])
            + int(found["decoding_differs_from_pass"]),
            error_rate_at_most=(
                float(found["sampled"]["error_rate_at_most"]) if "sampled" in found else None
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            "evaluation.json is not an evaluation; run `dvc repro` to make it anew"
        ) from error


def refusals(candidate: Certificate, production: Certificate | None, gate: Gate) -> list[str]:
    """Why the candidate may not go to Production: one clause a broken condition, or none.

    Args:
        candidate: of the version to promote.
        production: of the present Production, None if there is none.
        gate: the figures of params.yaml.
    """
    found = []
    if not candidate.complete:
        bound, accepted = candidate.error_rate_at_most, gate.max_error_rate
        if bound is None or accepted is None:
            found.append(
                f"it was evaluated on {candidate.equations:,} equations, not on every equation of "
                f"its domain ({candidate.domain})"
                + ("" if bound is None else "; promote.max_error_rate would accept a sample")
            )
        elif bound > accepted:
            found.append(
                f"its sample bounds the error rate by {bound:g}, and promote.max_error_rate is "
                f"{accepted:g}"
            )
    if candidate.errors > gate.max_errors:
        found.append(
            f"it makes {candidate.errors:,} errors, and promote.max_errors is {gate.max_errors:,}"
        )
    if candidate.disagreements:
        found.append(
            f"its serving graph or its certificate disagrees with decoding on "
            f"{candidate.disagreements:,} equations, and 0 are allowed"
        )
    # Turned round, as a margin that is no number is smaller than nothing.
    if gate.min_margin is not None and not candidate.smallest_margin >= gate.min_margin:
        found.append(
            f"its smallest margin is {candidate.smallest_margin}, and promote.min_margin is "
            f"{gate.min_margin}"
        )
    if production is None:
        return found
    if not candidate.includes(production):
        found.append(
            f"its domain ({candidate.domain}) does not include Production's ({production.domain})"
        )
        return found
    least, most = candidate.errors_within(production.grammar)
    if most > production.errors:
        figure = f"{least:,}" if least == most else f"between {least:,} and {most:,}"
        found.append(
            f"on Production's domain ({production.domain}) it makes {figure} errors, and "
            f"Production makes {production.errors:,}"
        )
    return found


def _is_in(grammar: Grammar, equation: str) -> bool:
    try:
        grammar.parse(equation)
    except InvalidEquation:
        return False
    return True
