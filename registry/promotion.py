"""Promote a version to Production through the gate, or roll back to the previous one.

    python -m registry.promotion 3 [--reason TEXT] [--override-gate "why"]
                                   [--candidate-url http://… --candidate-answers 1000]
    python -m registry.promotion --rollback [--reason TEXT]

The alias `Production` counts: services follow it, whoever moved it. A promotion lets `Previous`
name the version before, and a rollback swaps the two.
"""

import argparse
import socket
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic.errors import InvalidModelError, cli_errors
from registry import MODEL_NAME, PREVIOUS, PRODUCTION
from registry.client import open_client, registry_errors, repository_root, user_name
from registry.download import alias_target, download, get_version, resolve
from registry.exceptions import BrokenLineageError, PromotionRefusedError, VersionNotFoundError
from registry.gate import read_gate, violations
from registry.lineage import get_evaluation
from registry.service_health import candidate_violations

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FROM_TAG = "promoted_from"  # of a version: Production before it, if `promote` made it Production


@registry_errors()
def promote(
    number: str,
    root: Path,
    reason: str = "",
    override: str | None = None,
    candidate_url: str | None = None,
    candidate_answers: int = 1000,
) -> str:
    """Let Production name a version, if the gate passes; return what changed.

    Args:
        number: of the version.
        root: the folder of params.yaml with the gate.
        reason: kept as a tag of the version.
        override: why the gate is ignored this time; kept as the reason.
        candidate_url: a service that must have served the version.
        candidate_answers: checked answers without an error that it must have given.

    Raises:
        PromotionRefusedError: a condition is violated; nothing was changed.
        VersionNotFoundError, InvalidParamsError, RegistryError: from the store or params.yaml.
    """
    if override is not None and not override.strip():
        raise PromotionRefusedError("an override needs a reason", 'give OVERRIDE_GATE="why"')
    gate = read_gate(root)
    client = open_client()
    version, current = get_version(client, number), alias_target(client, PRODUCTION)
    number = str(version.version)
    if current == number:
        return f"version {number} of {MODEL_NAME} is {PRODUCTION} already"
    clauses = _damage(number)
    try:
        report = get_evaluation(client, version).report
        production = None
        if current is not None:
            production = get_evaluation(client, get_version(client, current)).report
        clauses += violations(report, production, gate)
    except BrokenLineageError as error:
        clauses.append(error.message)
    if candidate_url:
        clauses += candidate_violations(version, candidate_url, candidate_answers)
    if clauses and override is None:
        raise PromotionRefusedError(
            f"version {number} was not promoted: {'; '.join(clauses)}",
            'to promote it all the same: OVERRIDE_GATE="why" (or --override-gate "why")',
        )
    done = _move(client, number, current, f"gate overridden: {override}" if clauses else reason)
    return f"{done}; gate overridden: {'; '.join(clauses)}" if clauses else done


@registry_errors()
def rollback(reason: str = "") -> str:
    """Swap Production and Previous; return what changed.

    Raises:
        PromotionRefusedError: Previous is not the version before Production, or its files are
            damaged; nothing was changed.
        VersionNotFoundError: no version is Production.
    """
    client = open_client()
    production, previous = get_version(client), alias_target(client, PREVIOUS)
    current = str(production.version)
    if previous is None or previous != production.tags.get(_FROM_TAG):
        raise PromotionRefusedError(
            f"{PREVIOUS} ({previous or 'none'}) is not what preceded version {current}: "
            f"{PRODUCTION} was moved by hand, or is the first one",
            f"promote the version you want: `make promote VERSION={previous or 'n'}`",
        )
    if damage := _damage(previous):
        raise PromotionRefusedError(
            f"did not roll back: {damage[0]}", "promote another: `make promote VERSION=n`"
        )
    return _move(client, previous, current, reason or "rollback")


def _damage(number: str) -> list[str]:
    """Return what is wrong with the files of a version, if anything is."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            download(resolve(f"models:/{MODEL_NAME}/{number}"), Path(scratch))
        except (InvalidModelError, VersionNotFoundError) as error:
            return [error.message]
    return []


def _move(client: "MlflowClient", number: str, current: str | None, reason: str) -> str:
    """Move both aliases; Production last, so that a kill before it leaves no half promotion."""
    tags = {
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "promoted_by": f"{user_name()}@{socket.gethostname()}",
        "reason": reason or "none given",
        _FROM_TAG: current or "none",
    }
    for key, value in tags.items():
        client.set_model_version_tag(MODEL_NAME, number, key, value)
    present = alias_target(client, PRODUCTION)
    if present != current:
        message = f"{PRODUCTION} was moved from version {current} to {present} meanwhile"
        raise PromotionRefusedError(message, "repeat it if it is still what you want")
    if current is not None:
        client.set_registered_model_alias(MODEL_NAME, PREVIOUS, current)
    client.set_registered_model_alias(MODEL_NAME, PRODUCTION, number)
    before = f"version {current}" if current else "none"
    return f"version {number} of {MODEL_NAME} is {PRODUCTION} now, before: {before}"


def main() -> None:
    """Promote or roll back, as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m registry.promotion")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("version", nargs="?", help="number of the version to promote")
    group.add_argument("--rollback", action="store_true", help="return to the previous version")
    parser.add_argument("--reason", default="", help="kept as a tag")
    parser.add_argument("--override-gate", metavar="WHY", help="promote against the gate")
    parser.add_argument("--candidate-url", help="service that must have served the version")
    parser.add_argument("--candidate-answers", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    with cli_errors():
        if options.rollback:
            print(rollback(options.reason))
        else:
            print(
                promote(
                    options.version,
                    repository_root(),
                    options.reason,
                    override=options.override_gate,
                    candidate_url=options.candidate_url,
                    candidate_answers=options.candidate_answers,
                )
            )


if __name__ == "__main__":
    main()
