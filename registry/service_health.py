"""Ask a running service what it serves and how its checked answers were."""

from typing import TYPE_CHECKING, Any

from registry import DIGEST_TAG
from registry.client import bypass_proxy_for_loopback, first_line
from registry.exceptions import RegistryError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TIMEOUT_SECONDS = 10.0


def get_health(url: str) -> dict[str, Any]:
    """Return the body of a service's /health; raise RegistryError if there is none."""
    import requests

    bypass_proxy_for_loopback()
    address = f"{url.rstrip('/')}/health"
    try:
        response = requests.get(address, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        return dict(response.json())
    except (requests.RequestException, ValueError, TypeError) as error:
        raise RegistryError(
            f"{address} does not answer: {first_line(error)}",
            "give the address of a running service, like http://127.0.0.1:8000",
        ) from error


def candidate_violations(version: "ModelVersion", url: str, answers: int) -> list[str]:
    """Return one clause unless the service at `url` checked `answers` of `version`, all right."""
    try:
        health = get_health(url)
    except RegistryError as error:
        return [error.message]
    served = (health.get("model_version"), health.get("model_digest"))
    if served != (str(version.version), version.tags.get(DIGEST_TAG)):
        return [f"the service at {url} serves version {served[0]}"]
    accuracy = {"checked": 0, "wrong": 0, "failed": 0} | (health.get("accuracy") or {})
    if errors := accuracy["wrong"] + accuracy["failed"]:
        return [f"the service at {url} counted {errors:,} errors"]
    if accuracy["checked"] < answers:
        return [f"the service at {url} checked {accuracy['checked']:,} of {answers:,} answers"]
    return []
