"""Ask a running service what it serves and how its checked answers were."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry import DIGEST_TAG
from registry.client import bypass_proxy_for_loopback
from registry.exceptions import RegistryError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TIMEOUT_SECONDS = 10.0


def get_health(url: str, api_key: str = "") -> dict[str, Any]:
    """Return the body of a service's /health; raise RegistryError if there is none."""
    bypass_proxy_for_loopback()
    address = f"{url.rstrip('/')}/health"
    hint = "give the address of a running service, like http://127.0.0.1:8000"
    if not address.startswith(("http://", "https://")):
        raise RegistryError(f"{url!r} is not an http:// address", hint)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            body = json.loads(response.read())
    except (OSError, ValueError) as error:  # a status of 503 is an OSError too
        raise RegistryError(f"{address} does not answer: {error}", hint) from error
    if not isinstance(body, dict):
        raise RegistryError(f"{address} is not a service of this project", hint)
    return body


@dataclass(frozen=True)
class CandidateCheck:
    """Require `answers` error-free checked answers of a version from the service at `url`."""

    url: str
    answers: int
    api_key: str = ""

    def violations(self, version: "ModelVersion") -> list[str]:
        """Return one clause if the service does not serve the version, or not well enough."""
        try:
            health = get_health(self.url, self.api_key)
        except RegistryError as error:
            return [error.message]
        served = (str(health.get("model_version")), health.get("model_digest"))
        if served != (str(version.version), version.tags.get(DIGEST_TAG)):
            return [f"the service at {self.url} serves version {served[0]}"]
        accuracy = health.get("accuracy") or {}
        checked, wrong = accuracy.get("checked", 0), accuracy.get("wrong", 0)
        errors = wrong + accuracy.get("failed", 0)
        if errors:
            return [f"the service at {self.url} counted {errors:,} errors"]
        if checked < self.answers:
            return [f"the service at {self.url} checked {checked:,} of {self.answers:,} answers"]
        return []
