"""deliver: record what the store did not take when it was made.

    python -m registry.deliver      everything in `.owed`, oldest first

To the store that MLFLOW_TRACKING_URI names, or else to the one that each recording is owed to.
Repeating it, or killing it, delivers nothing twice and loses nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from arithmetic.errors import Problem, reported
from registry import owed, signing
from registry.record import OWED, bring, one_at_a_time
from registry.recording import Recorded

_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass
class Delivery:
    """What was delivered, and what was not with the reason."""

    done: list[Recorded] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def deliver(root: Path) -> Delivery:
    """Deliver all that is owed; one that fails does not stop the others, but for the same store.

    Raises:
        UnusableKey: SIGNING_KEY is no key.
        RegistryProblem: a kept recording is damaged.
    """
    signing.configured()
    result, lost = Delivery(), set()
    with one_at_a_time(root):
        for entry in owed.entries(root):
            uri = os.environ.get(_VARIABLE) or entry.tracking_uri
            if uri in lost:  # and the order is kept
                result.failed.append(f"{entry.name}: waits for the one before it")
                continue
            try:
                with _addressed(uri):
                    result.done.append(bring(root, entry))
            except Problem as problem:
                lost.add(uri)
                result.failed.append(f"{entry.name}: {problem}")
    return result


@contextmanager
def _addressed(uri: str) -> Iterator[None]:
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = uri
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def main() -> None:
    with reported():
        result = deliver(Path.cwd())
        for done in result.done:
            print(f"delivered: {done}")
        if not result.done and not result.failed:
            print("nothing is owed")
        for line in result.failed:
            print(f"owed: {line}", file=sys.stderr)
        if result.failed:
            raise SystemExit(OWED)


if __name__ == "__main__":
    main()
