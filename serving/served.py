"""A loaded version."""

from collections.abc import Callable
from dataclasses import dataclass

from arithmetic.engine import Engine
from arithmetic.grammar import Grammar
from arithmetic.layouts import Answer
from registry.inputs import Profile
from serving.batching import Batcher
from serving.tally import Tally


@dataclass(frozen=True)
class Served:
    """A version in service. Requests hold on to the one that took them, through any swap.

    Attributes:
        name, version, bundle_sha256: which one it is.
        grammar: what it may be asked.
        batcher: how requests ask it.
        engine: the model itself.
        answer: the engine's `answer`, its seconds noted.
        tally: what is known of it so far.
        inputs: how its training questions were distributed, None if nobody noted it.
    """

    name: str
    version: str
    bundle_sha256: str
    grammar: Grammar
    batcher: Batcher
    engine: Engine
    answer: Callable[..., list[Answer]]
    tally: Tally
    inputs: Profile | None

    @property
    def identity(self) -> tuple[str, str]:
        """Version and digest."""
        return self.version, self.bundle_sha256
