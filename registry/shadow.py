"""Has a version answered real questions rightly, as the shadow of the service that serves?

`promote` asks the service what its candidate is and how it did.
"""

from dataclasses import dataclass

import httpx

from arithmetic.errors import RegistryProblem
from registry import BUNDLE_TAG

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ShadowDemand:
    """So many clean answers are wanted from the candidate of the service at `url`.

    `key` is an API key of the service, if it asks for one.
    """

    url: str
    answers: int
    key: str = ""

    def __post_init__(self) -> None:
        if self.answers < 1 or not self.url.startswith(("http://", "https://")):
            raise RegistryProblem(
                "to demand shadow answers give both: SHADOW_URL=http://127.0.0.1:8000 "
                "SHADOW_ANSWERS=1000"
            )


def complaint(demand: ShadowDemand, version: str, tags: dict[str, str]) -> str | None:
    """What speaks against the version, None if it has its clean answers.

    /health says which version is tried; the counts are those of /metrics, which adds up all workers
    of the service.
    """
    place = demand.url.rstrip("/")
    key = {"Authorization": f"Bearer {demand.key}"} if demand.key else {}
    try:
        with httpx.Client(base_url=place, headers=key, timeout=TIMEOUT_SECONDS) as client:
            # Without a model the service says 503, and its candidate's answers count all the same.
            candidate = client.get("/health").json()["candidate"]
            counted = client.get("/metrics")
        if candidate is None:
            return f"the service at {demand.url} tries none: MODEL_URI_CANDIDATE is not set"
        tried, digest = candidate["model_version"], candidate["bundle_sha256"]
        if (tried, digest) != (version, tags.get(BUNDLE_TAG)):
            reason = f" ({candidate['reason']})" if candidate["reason"] else ""
            return (
                f"the service at {demand.url} tries version {tried or 'none'} and not "
                f"{version}{reason}"
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"the service at {demand.url} does not answer ({str(error) or repr(error)})"
    except (ValueError, KeyError, TypeError):
        return f"{place}/health is not that of this service"
    if not counted.is_success:
        return (
            f"{place}/metrics answers with status {counted.status_code}; set SHADOW_KEY if the "
            "service asks for keys"
        )
    checked, wrong, failed = (
        count(counted.text, f"arithmetic_{name}_total", version)
        for name in ("checked", "wrong", "failed")
    )
    if wrong or failed:
        return f"as a shadow it answered {wrong + failed} of {checked + failed} questions wrongly"
    if checked < demand.answers:
        return f"as a shadow it has {checked} clean answers and {demand.answers} are demanded"
    return None


def count(text: str, name: str, version: str) -> int:
    """The sum of a counter's samples for one version, in Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    return round(
        sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.get("version") == version
        )
    )
