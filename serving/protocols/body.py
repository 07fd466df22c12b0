"""A request's body, read with the care that input from anywhere needs."""

import json
from typing import Any

# As POST /predict/batch.
MOST_EQUATIONS = 1024


class Refused(Exception):
    """The request breaks its protocol: an HTTP status, one sentence, a `reason` to count by."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.reason = {404: "unknown_model", 415: "media_type"}.get(status, "malformed_body")


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object; raises Refused (400) for anything else."""
    try:
        content = json.loads(body)
    # ValueError has broken JSON, broken UTF-8 and integers of thousands of digits.
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"the body is not valid JSON ({reason})") from error
    if not isinstance(content, dict):
        raise Refused(400, f"the body must be a JSON object, and is {kind(content)}")
    return content


def texts(values: list[Any], where: str) -> list[str]:
    """At most MOST_EQUATIONS strings; raises Refused (400) naming the first that is none."""
    if len(values) > MOST_EQUATIONS:
        raise Refused(
            400, f"{len(values)} equations are more than {MOST_EQUATIONS}; send several requests"
        )
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise Refused(400, f"{where} {index} must be a string, and is {kind(value)}")
    return values


def kind(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
