"""What waits for a call of the model, and in which order it goes."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer

# An equation, whom to tell, until when (the event loop's time).
Waiting = tuple[Equation, "asyncio.Future[Answer]", float]


@dataclass
class Queue:
    """What waits for one kind of call.

    Attributes:
        operation, width: the kind: operation and beam width.
        heavy: calls go to the worker thread.
        size, depth, answers: what is counted.
        seconds_each: of a call, per equation, as the last calls took (a moving average).
    """

    operation: str
    width: int
    heavy: bool
    size: Histogram
    depth: Gauge
    answers: Counter
    singles: deque[Waiting] = field(default_factory=deque)
    bulk: deque[Waiting] = field(default_factory=deque)
    seconds_each: float = 0.0

    def __len__(self) -> int:
        return len(self.singles) + len(self.bulk)

    def took(self, seconds: float, count: int) -> None:
        """Note how long a call for `count` equations was under way."""
        self.seconds_each += (seconds / count - self.seconds_each) / 4

    def take(self, largest: int) -> list[Waiting]:
        """The next call's equations; a quarter is kept for bulk, if there is any."""
        bulk = min(len(self.bulk), max(largest // 4, largest - len(self.singles), 1))
        singles = min(len(self.singles), largest - bulk)
        taken = [self.singles.popleft() for _ in range(singles)]
        taken += [self.bulk.popleft() for _ in range(bulk)]
        return [waiting for waiting in taken if not waiting[1].done()]
