"""What is known of one loaded version: how often it was wrong, and how long it takes."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from arithmetic.grammar import Equation
from arithmetic.judging import Verdict
from arithmetic.layouts import Answer
from serving.reports import Accuracy

CALLS_KEPT = 1000
QUESTIONS_KEPT = 1000


class Tally:
    """Counts of one version since it was loaded. Verdicts come from one thread only.

    The error rate that can take a version out of service is over the latest `QUESTIONS_KEPT`
    *different* questions: asked a thousand times, one question that is answered wrongly is one
    observation, so nobody can bring a version down by repeating it.
    """

    def __init__(self, version: str, bundle_sha256: str):
        self.version, self.bundle_sha256 = version, bundle_sha256
        self.checked = self.wrong = self.unchecked = 0
        self.failed = 0  # questions on which the model raised
        self.withdrawn = False
        self.hallucinations = self.infinite_generation = self.out_of_range = 0
        self._calls: deque[tuple[float, int]] = deque(maxlen=CALLS_KEPT)
        self._questions: dict[tuple[str, int, int], bool] = {}
        self._wrong_questions = 0

    def timed(self, answer: Callable[..., list[Answer]]) -> Callable[..., list[Answer]]:
        """The same function, its calls' seconds noted."""
        calls = self._calls

        def noted(equations: Sequence[Equation], *rest: Any, **more: Any) -> list[Answer]:
            started = time.perf_counter()
            answers = answer(equations, *rest, **more)
            calls.append((time.perf_counter() - started, len(equations)))
            return answers

        return noted

    def forget_calls(self) -> None:
        """Leave out the calls of warming up."""
        self._calls.clear()

    def add(self, equation: Equation, verdict: Verdict | None) -> None:
        """Count one checked answer; without a verdict it was right."""
        self.checked += 1
        if verdict is not None:
            self.wrong += verdict.wrong
            self.hallucinations += verdict.hallucination
            self.infinite_generation += verdict.infinite_generation
            self.out_of_range += verdict.out_of_range
        self._note(equation, verdict is not None and verdict.wrong)

    def fail(self, equations: Sequence[Equation]) -> None:
        """Count questions on which the model raised; to its error rate they are wrong."""
        self.failed += len(equations)
        for equation in equations:
            self._note(equation, True)

    def _note(self, equation: Equation, wrong: bool) -> None:
        key = (equation.operation, equation.operand_1, equation.operand_2)
        if key in self._questions:
            return
        self._questions[key] = wrong
        self._wrong_questions += wrong
        if len(self._questions) > QUESTIONS_KEPT:
            self._wrong_questions -= self._questions.pop(next(iter(self._questions)))

    def excess(self, limit: float, minimum: int) -> str | None:
        """A sentence if the error rate exceeds `limit` over at least `minimum` questions."""
        asked, wrong = len(self._questions), self._wrong_questions
        if asked < minimum or wrong <= limit * asked:
            return None
        return (
            f"version {self.version} answered {wrong} of its latest {asked} different questions "
            f"wrongly, and ERROR_RATE_LIMIT is {limit:g}"
        )

    def report(self) -> Accuracy:
        """For /health."""
        calls = list(self._calls)
        equations = sum(size for _, size in calls)
        return Accuracy(
            version=self.version,
            checked=self.checked,
            wrong=self.wrong,
            failed=self.failed,
            unchecked=self.unchecked,
            hallucinations=self.hallucinations,
            infinite_generation=self.infinite_generation,
            out_of_range=self.out_of_range,
            error_rate=self.wrong / self.checked if self.checked else None,
            call_ms=round(median(seconds for seconds, _ in calls) * 1e3, 3) if calls else None,
            equation_ms=round(sum(seconds for seconds, _ in calls) / equations * 1e3, 4)
            if equations
            else None,
        )
