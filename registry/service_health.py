"""Ask a running service what it serves and how its checked answers were."""

from typing import TYPE_CHECKING, Any

from registry import DIGEST_TAG
from registry.client import bypass_proxy_for_loopback, first_line
from registry.exceptions import RegistryError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TIMEOUT_SECONDS = 10.0


def get_health(url: str, api_key: str = "") -> dict[str, Any]:
    """Return the body of a service's /health; raise RegistryError if there is none."""
    import requests

    bypass_proxy_for_loopback()
    address = f"{url.rstrip('/')}/health"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = requests.get(address, headers=headers, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        return dict(response.json())
    except (requests.RequestException, ValueError, TypeError) as error:
        raise RegistryError(
            f"{address} does not answer: {first_line(error)}",
            "give the address of a running service, like http://127.0.0.1:8000",
        ) from error


def candidate_violations(
    version: "ModelVersion", url: str, answers: int, api_key: str = ""
) -> list[str]:
    """Return one clause unless the service at `url` checked `answers` of `version`, all right."""
    try:
        health = get_health(url, api_key)
    except RegistryError as error:
        return [error.message]
    served = (str(health.get("model_version")), health.get("model_digest"))
    if served != (str(version.version), version.tags.get(DIGEST_TAG)):
        return [f"the service at {url} serves version {served[0]}"]
    accuracy = health.get("accuracy") or {}
    checked = accuracy.get("checked", 0)
    errors = accuracy.get("wrong", 0) + accuracy.get("failed", 0)
    if errors:
        return [f"the service at {url} counted {errors:,} errors"]
    if checked < answers:
        return [f"the service at {url} checked {checked:,} of {answers:,} answers"]
    return []
