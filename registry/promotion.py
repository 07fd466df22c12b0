"""Promote a version to Production through the gate, or roll back to the previous one.

    python -m registry.promotion 3 [--reason TEXT] [--override-gate "why"]
                                   [--candidate-url http://… --candidate-answers 1000]
    python -m registry.promotion --rollback [--reason TEXT]

The alias `Production` counts: services follow it, whoever moved it. A promotion lets `Previous`
name the version before, and a rollback swaps the two.
"""

import argparse
import os
import socket
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from arithmetic.errors import InvalidModelError, InvalidParamsError, cli_errors
from registry import MODEL_NAME, PREVIOUS, PRODUCTION
from registry.client import open_client, registry_errors, repository_root
from registry.download import download, resolve
from registry.dvc_lock import read_yaml
from registry.exceptions import BrokenLineageError, PromotionRefusedError, VersionNotFoundError
from registry.gate import Gate, violations
from registry.record import user_name
from registry.service_health import CandidateCheck
from registry.versions import alias_target, get_evaluation, get_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_FROM_TAG = "promoted_from"  # of a version: Production before it, if `promote` made it Production


class Promotion(NamedTuple):
    """Hold what a promotion or rollback changed."""

    version: str
    previous: str | None
    overridden: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.version == self.previous:
            return f"version {self.version} of {MODEL_NAME} is {PRODUCTION} already"
        before = f"version {self.previous}" if self.previous else "none"
        ignored = f"; gate overridden: {'; '.join(self.overridden)}" if self.overridden else ""
        return (
            f"version {self.version} of {MODEL_NAME} is {PRODUCTION} now, before: {before}{ignored}"
        )


def read_gate(root: Path) -> Gate:
    """Return the `promote` section of `root/params.yaml`; raise InvalidParamsError."""
    path = root / "params.yaml"
    section = read_yaml(path).get("promote")
    try:
        return Gate.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["promote", *map(str, first["loc"])])
        raise InvalidParamsError(f"{key} in {path}: {first['msg']}", "correct it") from error


@registry_errors()
def promote(
    number: str,
    root: Path,
    reason: str = "",
    override: str | None = None,
    candidate: CandidateCheck | None = None,
) -> Promotion:
    """Let Production name a version, if the gate passes.

    Args:
        number: of the version.
        root: the folder of params.yaml with the gate.
        reason: kept as a tag of the version.
        override: why the gate is ignored this time; kept as the reason.
        candidate: answers that a service must have given with the version.

    Raises:
        PromotionRefusedError: a condition is violated; nothing was changed.
        VersionNotFoundError, InvalidParamsError, RegistryError: from the store or params.yaml.
    """
    if override is not None and not override.strip():
        raise PromotionRefusedError("an override needs a reason", 'give OVERRIDE_GATE="why"')
    gate = read_gate(root)
    client = open_client()
    version = get_version(client, number)
    number, current = str(version.version), alias_target(client, PRODUCTION)
    if current == number:
        return Promotion(number, number)
    clauses = _violations(client, version, current, gate)
    if candidate is not None:
        clauses += candidate.violations(version)
    if clauses and override is None:
        raise PromotionRefusedError(
            f"version {number} was not promoted: {'; '.join(clauses)}",
            'to promote it all the same: OVERRIDE_GATE="why" (or --override-gate "why")',
        )
    _move(client, number, current, f"gate overridden: {override}" if clauses else reason)
    return Promotion(number, current, tuple(clauses))


@registry_errors()
def rollback(reason: str = "") -> Promotion:
    """Swap Production and Previous.

    Raises:
        PromotionRefusedError: Previous is not the version before Production, or its files are
            damaged; nothing was changed.
    """
    client = open_client()
    current, previous = alias_target(client, PRODUCTION), alias_target(client, PREVIOUS)
    if current is None:
        raise VersionNotFoundError(f"no version is {PRODUCTION}", "`make promote VERSION=n`")
    preceding = get_version(client, current).tags.get(_FROM_TAG)
    if previous is None or previous != preceding:
        raise PromotionRefusedError(
            f"{PREVIOUS} ({previous or 'none'}) is not what preceded version {current}: "
            f"{PRODUCTION} was moved by hand, or is the first one",
            f"promote the version you want: `make promote VERSION={previous or 'n'}`",
        )
    damage = _damage(previous)
    if damage:
        raise PromotionRefusedError(
            f"did not roll back: {damage[0]}", "promote another: `make promote VERSION=n`"
        )
    _move(client, previous, current, reason or "rollback")
    return Promotion(previous, current)


def _violations(
    client: "MlflowClient", version: "ModelVersion", current: str | None, gate: Gate
) -> list[str]:
    clauses = _damage(str(version.version))
    try:
        report = get_evaluation(client, version).report
        production = None
        if current is not None:
            production = get_evaluation(client, get_version(client, current)).report
    except BrokenLineageError as error:
        return [*clauses, error.message]
    return clauses + violations(report, production, gate)


def _damage(number: str) -> list[str]:
    """Return what is wrong with the files of a version, if anything is."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            download(resolve(f"models:/{MODEL_NAME}/{number}"), Path(scratch))
        except (InvalidModelError, VersionNotFoundError) as error:
            return [error.message]
    return []


def _move(client: "MlflowClient", number: str, current: str | None, reason: str) -> None:
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


def main() -> None:
    """Promote or roll back, as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m registry.promotion", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("version", nargs="?", help="number of the version to promote")
    group.add_argument("--rollback", action="store_true", help="return to the previous version")
    parser.add_argument("--reason", default="", help="kept as a tag")
    parser.add_argument("--override-gate", metavar="WHY", help="promote against the gate")
    parser.add_argument("--candidate-url", help="service that must have served the version")
    parser.add_argument("--candidate-answers", type=int, default=1000, metavar="N")
    arguments = parser.parse_args()
    with cli_errors():
        if arguments.rollback:
            print(rollback(arguments.reason))
            return
        candidate = None
        if arguments.candidate_url:
            key = os.environ.get("CANDIDATE_KEY", "")
            candidate = CandidateCheck(arguments.candidate_url, arguments.candidate_answers, key)
        root, override = repository_root(), arguments.override_gate
        print(promote(arguments.version, root, arguments.reason, override, candidate))


if __name__ == "__main__":
    main()
