"""Has a version answered real questions rightly, as the shadow of the service that serves?

`promote` asks the service's /health, which says what its candidate is and how it did.
"""

from dataclasses import dataclass
from typing import Any

import httpx

from arithmetic.errors import RegistryProblem
from registry import BUNDLE_TAG

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ShadowDemand:
    """So many clean answers are wanted from the candidate of the service at `url`."""

    url: str
    answers: int

    def __post_init__(self) -> None:
        if self.answers < 1 or not self.url.startswith(("http://", "https://")):
            raise RegistryProblem(
                "to demand shadow answers give both: SHADOW_URL=http://127.0.0.1:8000 "
                "SHADOW_ANSWERS=1000"
            )


def complaint(demand: ShadowDemand, version: str, tags: dict[str, str]) -> str | None:
    """What speaks against the version, None if it has its clean answers."""
    url = f"{demand.url.rstrip('/')}/health"
    try:
        # Without a model the service says 503, and its candidate's answers count all the same.
        health: Any = httpx.get(url, timeout=TIMEOUT_SECONDS).json()
        candidate = health["candidate"]
        if candidate is None:
            return (
                f"the service at {demand.url} tries no candidate (MODEL_URI_CANDIDATE is not set)"
            )
        tried, digest = candidate["model_version"], candidate["bundle_sha256"]
        found = candidate["accuracy"]
        if (tried, digest) != (version, tags.get(BUNDLE_TAG)):
            reason = f" ({candidate['reason']})" if candidate["reason"] else ""
            return (
                f"the service at {demand.url} tries version {tried or 'none'} and not "
                f"{version}{reason}"
            )
        checked, wrong, failed = found["checked"], found["wrong"], found["failed"]
    except httpx.HTTPError as error:
        return f"the service at {demand.url} does not answer ({str(error) or repr(error)})"
    except (ValueError, KeyError, TypeError) as error:
        return f"{url} is not the /health of this service ({error!r})"
    if wrong or failed:
        return f"as a shadow it answered {wrong + failed} of {checked + failed} questions wrongly"
    if checked < demand.answers:
        return f"as a shadow it has {checked} clean answers and {demand.answers} are demanded"
    return None
