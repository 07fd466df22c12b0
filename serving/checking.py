"""Every answer is checked exactly, after it was given.

The right answer to an arithmetic question can be computed, so accuracy in production is measured
and not guessed. Nothing here touches an answer: a client has got it, and it was the model's own.
"""

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from arithmetic.grammar import Equation, Grammar, solve
from arithmetic.judging import judge
from arithmetic.layouts import Answer
from serving.background import Background
from serving.batching import Observer
from serving.drift import Drift
from serving.hard_cases import HardCases
from serving.metrics import Metrics
from serving.tally import Tally


@dataclass(frozen=True)
class Given:
    """Answers of one call, to be checked.

    Attributes:
        answers: None where the model raised on these equations.
        asked_for: False for a copy that only the shadow answered.
    """

    tally: Tally
    grammar: Grammar
    equations: Sequence[Equation]
    answers: Sequence[Answer] | None
    asked_for: bool = True


class Checker:
    """Checks in a thread of its own and counts into /metrics and the versions' tallies.

    Args:
        metrics: gets the counters.
        limit: most equations that wait to be checked; what is over is counted as unchecked.
        drift: told of every equation that a user asked.
        hard_cases: told of every wrong answer.
        checked: told after each call's answers, with their tally; in the checking thread.
    """

    def __init__(
        self,
        metrics: Metrics,
        limit: int,
        drift: Drift,
        hard_cases: HardCases,
        checked: Callable[[Tally], None],
    ):
        self._drift, self._hard_cases, self._told = drift, hard_cases, checked
        self._background: Background[Given] = Background("checking", self._check, limit)

        def counter(name: str, says: str, labels: Sequence[str] = ("version",)) -> Counter:
            return Counter(f"arithmetic_{name}", says, labels, registry=metrics.registry)

        by_operation = ("version", "operation")
        self._checked = counter("checked", "Answers compared with the exact one.", by_operation)
        self._wrong = counter("wrong", "Answers that were wrong.", by_operation)
        self._hallucinations = counter("hallucinations", "Answers that were no integer.")
        self._infinite = counter("infinite_generations", "Answers without an end.")
        self._out_of_range = counter("out_of_range", "Integers that no equation asked for has.")
        self._failed = counter("failed", "Questions on which a version raised.")
        self._unchecked = counter("unchecked", "Answers not checked: too many were waiting.")

    @property
    def waiting(self) -> int:
        """Answers that wait to be checked."""
        return self._background.waiting

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """Check what waits, for a second at most."""
        self._background.stop()

    def observer(self, tally: Tally, grammar: Grammar) -> Observer:
        """What a version's batcher tells of every call."""

        def observe(equations: Sequence[Equation], answers: Sequence[Answer]) -> None:
            self.put(Given(tally, grammar, equations, answers))

        return observe

    def failures(self, tally: Tally, grammar: Grammar) -> Callable[[Sequence[Equation]], None]:
        """What a version's batcher tells of equations on which the model raised."""

        def failed(equations: Sequence[Equation]) -> None:
            self.put(Given(tally, grammar, equations, None))

        return failed

    def put(self, given: Given) -> None:
        """Have it checked; never waits."""
        if not self._background.put(given, len(given.equations)):
            given.tally.unchecked += len(given.equations)
            self._unchecked.labels(given.tally.version).inc(len(given.equations))

    def _check(self, given: Given) -> None:
        tally, version = given.tally, given.tally.version
        if given.answers is None:
            tally.fail(given.equations)
            self._failed.labels(version).inc(len(given.equations))
            self._told(tally)
            return
        checked: Counts[str] = Counts()
        for equation, answer in zip(given.equations, given.answers, strict=True):
            checked[equation.operation] += 1
            expected = solve(equation)
            # Nearly all are right; judging costs more than this comparison (2 µs against 0.1).
            if answer.text == expected and answer.ended:
                tally.add(equation, None)
                continue
            verdict = judge(answer, expected, equation.operation, given.grammar)
            tally.add(equation, verdict)
            self._wrong.labels(version, equation.operation).inc(verdict.wrong)
            self._hallucinations.labels(version).inc(verdict.hallucination)
            self._infinite.labels(version).inc(verdict.infinite_generation)
            self._out_of_range.labels(version).inc(verdict.out_of_range)
            self._hard_cases.keep(tally, equation, answer, expected)
        for operation, count in checked.items():
            self._checked.labels(version, operation).inc(count)
        if given.asked_for:
            self._drift.add(given.equations, given.grammar)
        self._told(tally)
