"""promote: move the alias `Production` to a version, after the gate; or back.

    python -m registry.promote 3 [--reason TEXT] [--override-gate "why"]
                                 [--shadow-url http://… --shadow-answers 1000]
    python -m registry.promote --rollback [--reason TEXT]

The gate (`arithmetic.gate`, figures from params.yaml) judges by the certificate that the version's
tags point to. The alias is what counts: a version that someone promoted in MLflow's own pages is
the present Production here too, and a later rollback finds it.
"""

import argparse
import getpass
import os
import socket
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from arithmetic.errors import InvalidParams, Problem, RegistryProblem, reported
from arithmetic.gate import Gate, refusals
from registry import ALIAS, BUNDLE_PATH, MODEL, SIGNATURE_PATH, signature, store
from registry.errors import PromotionRefused, UntrustedBundle, VersionNotFound
from registry.history import History, read_history, write_history
from registry.shadow import ShadowDemand, complaint
from registry.versions import (
    aliased,
    certificate_of,
    check_files,
    download,
    find_version,
    get_version,
    is_registered,
    version_number,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Promoted:
    """What a promotion or rollback did.

    Attributes:
        version: Production now.
        previous: Production before, None if there was none.
        changed: False if the version was Production already.
        overridden: the conditions that an override passed over.
    """

    version: str
    previous: str | None
    changed: bool
    overridden: tuple[str, ...] = ()


def production(root: Path | None = None) -> str | None:
    """The number of the version that is Production now, None if there is none."""
    with store.opened(root) as client:
        return aliased(client)


def read_gate(root: Path) -> Gate:
    """The `promote` section of params.yaml; raises InvalidParams."""
    path = root / "params.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InvalidParams(
            f"{path} does not read ({why}); correct it, or restore it with git"
        ) from error
    try:
        return Gate.model_validate(content["promote"])
    except (KeyError, TypeError) as error:
        raise InvalidParams(
            f"{path} has no section `promote`; add one with max_errors, or restore it with git"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["promote", *map(str, first["loc"])])
        raise InvalidParams(f"{key} in params.yaml: {first['msg']}; correct it") from error


def promote(
    version: str,
    root: Path,
    reason: str | None = None,
    override: str | None = None,
    shadow: ShadowDemand | None = None,
) -> Promoted:
    """Make `version` Production, if the gate lets it.

    Args:
        version: its number, digits only.
        root: the folder of params.yaml, from which the store is found as well.
        reason: left as a tag.
        override: why the gate does not count this time; left as a tag.
        shadow: clean answers that the version must have given as a running service's shadow; one
            more condition of the gate.

    Raises:
        PromotionRefused: a condition is not met; nothing was changed.
        VersionNotFound: there is no such version.
        InvalidParams: params.yaml has no valid `promote` section.
        RegistryUnreachable, RegistryProblem: the store.
    """
    version = version_number(version)
    if override is not None and not override.strip():
        raise RegistryProblem(
            'give a reason for passing the gate: OVERRIDE_GATE="why" (or --override-gate "why")'
        )
    gate = read_gate(root)
    with store.opened(root) as client:
        get_version(client, version)
        current = aliased(client)
        if current == version:
            _note_what_was_not(client, version, reason)
            return Promoted(version, current, changed=False)
        broken = _broken_conditions(client, version, current, gate)
        if shadow is not None:
            tags = get_version(client, version).tags
            broken += filter(None, [complaint(shadow, version, tags)])
        if broken and override is None:
            raise PromotionRefused(
                f"version {version} was not promoted: {'; and '.join(broken)}; "
                'to promote it all the same, give OVERRIDE_GATE="why" (or --override-gate "why")'
            )
        who = _who()
        before = read_history(client).noticing(current)
        tags = {
            "promoted_reason": reason or "none given",
            "promoted_from": current or "none",
            "gate": "overridden" if broken else "passed",
            "gate_override": override if broken and override else "none",
            "gate_conditions_passed_over": "; ".join(broken) or "none",
            "shadow_answers": str(shadow.answers) if shadow and not broken else "none",
        }
        _move(client, current, version, before.promoted(version))
        _sign(client, version, "promoted", who, tags)
    return Promoted(version, current, changed=True, overridden=tuple(broken))


def rollback(root: Path, reason: str | None = None) -> Promoted:
    """Make the version that was Production before the present one Production again.

    Raises:
        VersionNotFound: there is no earlier one, or no model at all.
        PromotionRefused: the files of the earlier one are damaged, or TRUSTED_KEY did not sign
            them; nothing was changed.
        RegistryUnreachable, RegistryProblem: the store.
    """
    with store.opened(root) as client:
        if not is_registered(client):
            raise VersionNotFound(f"{MODEL} is not registered yet; run `dvc repro`")
        current = aliased(client)
        before = read_history(client).noticing(current)
        target = before.target(lambda version: find_version(client, version) is not None)
        if target is None:
            raise VersionNotFound(
                f"there is no earlier {ALIAS} version to return to; promote one by its number"
            )
        earlier, who = get_version(client, target), _who()
        damage = _damage(client, earlier)
        against = [damage] if damage else _unsigned(earlier)
        if against:
            raise PromotionRefused(
                f"did not roll back to version {target}: {against[0]}; promote another by its "
                "number"
            )
        _move(client, current, target, before.rolled_back(target))
        why = reason or "none given"
        if current is not None and find_version(client, current) is not None:
            _sign(client, current, "rolled_back", who, {"rolled_back_reason": why})
        tags = {"restored_reason": why, "restored_from": current or "none"}
        _sign(client, target, "restored", who, tags)
    return Promoted(target, current, changed=True)


def _broken_conditions(
    client: "MlflowClient", version: str, current: str | None, gate: Gate
) -> list[str]:
    """All that speaks against this promotion; empty if nothing does."""
    found = get_version(client, version)
    damage = _damage(client, found)
    broken = [damage] if damage else _unsigned(found)
    try:
        candidate = certificate_of(found)
    except Problem as problem:
        return [*broken, str(problem)]
    present = None
    if current is not None and current != version:
        try:
            present = certificate_of(get_version(client, current))
        except Problem as problem:
            broken.append(f"there is nothing to compare with: {problem}")
    return broken + refusals(candidate, present, gate)


def _damage(client: "MlflowClient", version: "ModelVersion") -> str | None:
    """What is wrong with the files of a version, if anything is."""
    try:
        check_files(client, version)
    except Problem as problem:
        return str(problem)
    return None


def _unsigned(version: "ModelVersion") -> list[str]:
    """What TRUSTED_KEY says against a version, if the environment names one."""
    named = os.environ.get("TRUSTED_KEY")
    if not named:
        return []
    key = signature.load_key(Path(named))
    with tempfile.TemporaryDirectory() as scratch:
        folder = download(version, Path(scratch))
        try:
            signature.verify(folder / BUNDLE_PATH, folder / SIGNATURE_PATH, key)
        except UntrustedBundle as problem:
            return [str(problem)]
    return []


def _note_what_was_not(client: "MlflowClient", version: str, reason: str | None) -> None:
    """Complete the notes on a Production that somebody set by hand, or a killed promotion."""
    history = read_history(client)
    if history.current == version:
        return
    tags = {
        "promoted_reason": reason or "none given",
        "promoted_from": history.current or "none",
        "gate": "not known: it was Production already",
    }
    _sign(client, version, "promoted", _who(), tags)
    write_history(client, history.noticing(version))


def _move(client: "MlflowClient", current: str | None, version: str, history: History) -> None:
    """Let the alias name `version` instead of `current`; PromotionRefused if it was moved."""
    now = aliased(client)
    if now != current:
        raise PromotionRefused(
            f"{ALIAS} was moved meanwhile, from version {current or 'none'} to {now or 'none'}; "
            "look why, and repeat"
        )
    # The alias first: if the history is then not written, the next call sees a promotion by hand.
    client.set_registered_model_alias(MODEL, ALIAS, version)
    write_history(client, history)


def _who() -> str:
    """`user@host`; asked for before anything is changed, as a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _sign(client: "MlflowClient", version: str, what: str, who: str, tags: dict[str, str]) -> None:
    """Who and when, besides `tags`, on a version."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for key, value in {f"{what}_at": when, f"{what}_by": who, **tags}.items():
        client.set_model_version_tag(MODEL, version, key, value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m registry.promote", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("version", nargs="?", help="number of the version to promote")
    parser.add_argument("--rollback", action="store_true", help="return to the previous one")
    parser.add_argument("--reason", help="why, left as a tag")
    parser.add_argument("--override-gate", metavar="WHY", help="promote against the gate")
    parser.add_argument("--shadow-url", help="service that must have tried the version")
    parser.add_argument("--shadow-answers", type=int, default=0, help="its clean answers, at least")
    given = parser.parse_args()
    with reported():
        if given.rollback == bool(given.version):
            raise RegistryProblem(
                "give the number of a version or --rollback: `make promote VERSION=3`, "
                "`make rollback`"
            )
        if given.rollback:
            done = rollback(Path.cwd(), given.reason)
        else:
            shadow = None
            if given.shadow_url or given.shadow_answers:
                key = os.environ.get("SHADOW_KEY", "")
                shadow = ShadowDemand(given.shadow_url or "", given.shadow_answers, key)
            done = promote(given.version, Path.cwd(), given.reason, given.override_gate, shadow)
        print(report(done))


def report(done: Promoted) -> str:
    """One sentence on what was done."""
    if not done.changed:
        return f"version {done.version} of {MODEL} is {ALIAS} already"
    before = f"before: version {done.previous}" if done.previous else "there was none before"
    passed_over = f"; passed over: {'; '.join(done.overridden)}" if done.overridden else ""
    return f"version {done.version} of {MODEL} is now {ALIAS} ({before}){passed_over}"


if __name__ == "__main__":
    main()
