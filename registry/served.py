"""What a running service says that it serves."""

from typing import Any

import httpx

from registry.errors import BrokenLink

TIMEOUT_SECONDS = 10.0


def health_of(url: str) -> dict[str, Any]:
    """The service's /health; raises BrokenLink if nobody answers, or not like our service."""
    try:
        content = httpx.get(f"{url.rstrip('/')}/health", timeout=TIMEOUT_SECONDS).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise BrokenLink(
            f"service → version: {url} does not say what it serves "
            f"({str(error) or type(error).__name__}); start it, or correct SERVICE_URL"
        ) from error
    if not isinstance(content, dict):
        raise BrokenLink(f"service → version: {url} is no service of this project")
    return content
