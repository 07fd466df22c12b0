"""What the scripts ask a running service."""

import json
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 10.0


def get(url: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """GET and parse JSON; raises OSError, of which HTTPError is one."""
    with urllib.request.urlopen(url, timeout=timeout) as response:
        result: dict[str, Any] = json.load(response)
    return result


def question_for(health: dict[str, Any]) -> str:
    """951+11=, or the nearest to it in the domain that a service's /health names."""
    operations, largest = health["operations"], int(health["max_operand"])
    operation = "+" if "+" in operations else operations[0]
    return f"{min(951, largest)}{operation}{min(11, largest)}="


def ask(address: str, equation: str) -> dict[str, Any]:
    """POST /predict; raises as `get`."""
    request = urllib.request.Request(
        f"{address}/predict",
        json.dumps({"equation": equation}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        result: dict[str, Any] = json.load(response)
    return result
