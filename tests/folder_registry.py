"""A registry that is a function; tests/test_following.py has the real one."""

from collections.abc import Callable
from pathlib import Path

from registry.pull import Pulled, Resolved

# Model URI, tracking URI and a folder to a verified version.
Puller = Callable[[str, str, Path], Pulled]


class Answers:
    """Gives what the function gives, and raises what it raises, when it is asked for a version."""

    def __init__(self, pull: Puller):
        self._pull = pull
        # By version: Production's thread and the candidate's ask the same registry.
        self._pulled: dict[str, Pulled] = {}

    def resolve(self, model_uri: str) -> Resolved:
        pulled = self._pull(model_uri, "", Path())
        self._pulled[pulled.version] = pulled
        return Resolved(pulled.name, pulled.version, pulled.bundle_sha256, pulled.errors)

    def fetch(self, found: Resolved, into: Path) -> Pulled:
        return self._pulled[found.version]
