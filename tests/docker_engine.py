"""Whether there is a Docker engine to test with.

Locally its absence skips the tests that need one; where CI is set it fails them, so that nothing is
left untested in silence.
"""

import os

import pytest

from arithmetic.errors import Problem
from scripts import containers


def require_engine() -> None:
    """Skip the test, or fail it in CI, unless an engine answers."""
    missing = _missing()
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI needs a Docker engine: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"not tested without a Docker engine: {missing}")


def _missing() -> str | None:
    try:
        containers.check_engine()
    except Problem as problem:
        return str(problem)
    return None
