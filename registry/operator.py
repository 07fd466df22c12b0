"""Rolling an alias back by REST, as an operator: for a service that has found its version wrong.

The same as `registry.promote --rollback` leaves behind (alias, history, tags who, when and why),
without MLflow, which the service does not have.
"""

from datetime import UTC, datetime
from typing import Any

import httpx

from arithmetic.errors import RegistryProblem
from registry import ALIAS
from registry.errors import RegistryUnreachable, VersionNotFound, shown
from registry.history import TAG, History, from_text

_API = "/api/2.0/mlflow"


def roll_back(
    client: httpx.Client,
    name: str,
    alias: str,
    withdrawn: str,
    to: str | None,
    who: str,
    reason: str,
) -> str | None:
    """Move `alias` from version `withdrawn` to the one before it by the history, as `make rollback`
    does; where the history knows none, to `to`.

    Args:
        client: of the server, with an operator's credentials.
        to: None if only the registry can know.
        who, reason: left as tags.

    Returns the version that the alias names now; None if somebody had moved it already.

    Raises:
        RegistryUnreachable: no answer, or no permission.
        VersionNotFound: there is no earlier version.
        RegistryProblem: the alias was moved, and not all of the rest was written.
    """
    answer = _call(client, "GET", "registered-models/get", {"name": name})
    model = answer.get("registered_model")
    if not isinstance(model, dict):
        raise RegistryProblem(f"{shown(client.base_url)} does not answer like an MLflow server")
    aliases = {one["alias"]: str(one["version"]) for one in model.get("aliases", [])}
    if aliases.get(alias) != withdrawn:
        return None
    tags = {one["key"]: one.get("value", "") for one in model.get("tags", [])}
    # The history is that of Production alone.
    before = from_text(tags.get(TAG)).noticing(withdrawn) if alias == ALIAS else History(withdrawn)
    target = before.target(lambda version: _exists(client, name, version))
    if target is None and to is not None and to != withdrawn and _exists(client, name, to):
        target = to
    if target is None:
        raise VersionNotFound(f"there is no earlier {alias} version to return to")
    known = target in before.earlier
    after = before.rolled_back(target) if known else before.promoted(target)
    # The alias first, as in registry.promote: what counts is done even if the rest is not.
    body = {"name": name, "alias": alias, "version": target}
    _call(client, "POST", "registered-models/alias", body)
    try:
        _write_down(client, name, alias, withdrawn, target, after, who, reason)
    except RegistryProblem as problem:
        raise RegistryProblem(
            f"{alias} is version {target} now, and the notes of who, when and why are not "
            f"complete ({problem})"
        ) from problem
    return target


def _write_down(
    client: httpx.Client,
    name: str,
    alias: str,
    withdrawn: str,
    target: str,
    after: History,
    who: str,
    reason: str,
) -> None:
    """History and tags, as `registry.promote` leaves them."""
    if alias == ALIAS:
        tag = {"name": name, "key": TAG, "value": after.text()}
        _call(client, "POST", "registered-models/set-tag", tag)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    signed = {
        withdrawn: {"rolled_back_at": when, "rolled_back_by": who, "rolled_back_reason": reason},
        target: {
            "restored_at": when,
            "restored_by": who,
            "restored_reason": reason,
            "restored_from": withdrawn,
        },
    }
    for version, notes in signed.items():
        for key, value in notes.items():
            tag = {"name": name, "version": version, "key": key, "value": value}
            _call(client, "POST", "model-versions/set-tag", tag)


def _exists(client: httpx.Client, name: str, version: str) -> bool:
    try:
        _call(client, "GET", "model-versions/get", {"name": name, "version": version})
    except VersionNotFound:
        return False
    return True


def _call(client: httpx.Client, method: str, path: str, what: dict[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {"params": what} if method == "GET" else {"json": what}
    try:
        response = client.request(method, f"{_API}/{path}", **given)
    except httpx.HTTPError as error:
        raise RegistryUnreachable(
            f"no answer from the MLflow server {shown(client.base_url)} "
            f"({str(error) or type(error).__name__}); roll back by hand"
        ) from error
    if response.status_code in (401, 403):  # MLflow's basic-auth says it as plain text
        raise RegistryUnreachable(
            f"the MLflow server {shown(client.base_url)} refuses the operator with status "
            f"{response.status_code}; correct OPERATOR_TOKEN or OPERATOR_USERNAME and "
            "OPERATOR_PASSWORD"
        )
    try:
        content = response.json() if response.content else {}
    except ValueError as error:
        raise RegistryUnreachable(
            f"the MLflow server {shown(client.base_url)} answered {path} with status "
            f"{response.status_code} and no JSON; roll back by hand"
        ) from error
    if response.is_success and isinstance(content, dict):
        return content
    code = content.get("error_code") if isinstance(content, dict) else None
    if code == "RESOURCE_DOES_NOT_EXIST":
        raise VersionNotFound(f"{what} is not there")
    raise RegistryProblem(f"the MLflow server answered {path} with {response.status_code} {code}")
