"""Check every answer after it was sent, and compare the inputs with the training data.

The exact answer to an arithmetic question can be computed, so accuracy in production is measured.
One background thread checks; a full queue costs checks, never answers.
"""

import json
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arithmetic.formats import Answer, Outcome, classify
from arithmetic.grammar import Equation, Grammar, solve
from arithmetic.input_profile import Profile, profile, psi
from serving.batcher import Result
from serving.metrics import Metrics
from serving.schemas import Accuracy

log = logging.getLogger(__name__)

WINDOW = 1000  # distinct questions in the error rate that can reject a version
DRIFT_BLOCK = 500  # inputs; without drift, 500 of them have a PSI of about 0.02 over ten bins
DRIFT_BLOCKS = 20
MISPREDICTION_BYTES = 2_000_000  # of the file, and of its one backup
# After so many equations the thread sleeps for a moment: otherwise the event loop would wait for
# the interpreter's switch interval, 5 ms, whenever a request arrives during a long check.
CHECKS_AT_A_TIME = 64
PAUSE_SECONDS = 0.0002


class VersionStats:
    """Count the checked answers of one loaded version; only the monitor's thread writes.

    The error rate that can reject a version is over the latest `WINDOW` *distinct* questions: a
    question that is answered wrongly counts once, so repeating it cannot bring a version down.
    """

    def __init__(self, version: str, digest: str, grammar: Grammar):
        self.version, self.digest, self.grammar = version, digest, grammar
        self.counts: Counter[str] = Counter()
        self._window: dict[Equation, bool] = {}
        self._wrong_in_window = 0

    def add(self, equation: Equation, outcome: Outcome | None) -> None:
        """Count one checked answer; without an outcome it was right."""
        self.counts["checked"] += 1
        if outcome is not None:
            self.counts.update(outcome._asdict())
        self._add_to_window(equation, outcome is not None and outcome.wrong)

    def add_failure(self, equation: Equation) -> None:
        """Count an equation on which the model raised; in the error rate it is wrong."""
        self.counts["failed"] += 1
        self._add_to_window(equation, True)

    def _add_to_window(self, equation: Equation, is_wrong: bool) -> None:
        if equation in self._window:
            return
        self._window[equation] = is_wrong
        self._wrong_in_window += is_wrong
        if len(self._window) > WINDOW:
            self._wrong_in_window -= self._window.pop(next(iter(self._window)))

    def rejection_reason(self, max_error_rate: float, min_questions: int) -> str | None:
        """Return a sentence if the error rate over enough questions exceeds the limit."""
        questions, wrong = len(self._window), self._wrong_in_window
        if questions < min_questions or wrong <= max_error_rate * questions:
            return None
        return (
            f"version {self.version} answered {wrong} of its latest {questions} distinct questions "
            f"wrongly; MAX_ERROR_RATE is {max_error_rate:g}"
        )

    def report(self) -> Accuracy:
        """Return the counts for /health."""
        checked = self.counts["checked"]
        rate = self.counts["wrong"] / checked if checked else None
        return Accuracy(error_rate=rate, **self.counts)


class CheckedBatch(NamedTuple):
    """Hold one call's equations and results until they are checked."""

    stats: VersionStats
    equations: Sequence[Equation]
    results: Sequence[Result]


class Monitor:
    """Check answers in a background thread; count into /metrics and the version's stats."""

    def __init__(
        self,
        metrics: Metrics,
        mispredictions: Path,
        queue_size: int,
        on_checked: Callable[[VersionStats], None],
    ):
        """Call `on_checked` in the monitor's thread after each batch."""
        self._metrics, self._on_checked = metrics, on_checked
        self._queue: queue.Queue[CheckedBatch | None] = queue.Queue()
        self._queue_size, self._waiting = queue_size, 0
        self._lock = threading.Lock()
        self._mispredictions = MispredictionLog(mispredictions)
        self._drift = Drift(metrics)
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Check what waits, for `timeout` seconds at most."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._mispredictions.close()

    @property
    def waiting(self) -> int:
        """Return how many answers wait to be checked."""
        return self._waiting

    def submit(
        self, stats: VersionStats, equations: Sequence[Equation], results: Sequence[Result]
    ) -> None:
        """Enqueue a batch without waiting; where there is no room it stays unchecked."""
        with self._lock:
            has_room = self._waiting + len(equations) <= self._queue_size
            if has_room:
                self._waiting += len(equations)
        if has_room:
            self._queue.put(CheckedBatch(stats, equations, results))
        else:
            stats.counts["unchecked"] += len(equations)
            self._metrics.unchecked.labels(stats.version).inc(len(equations))

    def set_reference(self, grammar: Grammar, reference: Profile) -> None:
        """Compare inputs with another version's training data from now on."""
        self._drift.set_reference(grammar, reference)

    def drift(self) -> dict[str, float] | None:
        """Return the PSI of each feature, None before the first block of inputs."""
        return self._drift.psi or None

    def _run(self) -> None:
        done = 0
        while (batch := self._queue.get()) is not None:
            try:
                self._check(batch)
            except Exception:  # a bug in one check must not end all others
                log.exception("an answer could not be checked")
            with self._lock:
                self._waiting -= len(batch.equations)
            done += len(batch.equations)
            if done >= CHECKS_AT_A_TIME:
                done = 0
                time.sleep(PAUSE_SECONDS)

    def _check(self, batch: CheckedBatch) -> None:
        stats, metrics = batch.stats, self._metrics
        checked: Counter[str] = Counter()
        for equation, result in zip(batch.equations, batch.results, strict=True):
            if isinstance(result, Exception):
                stats.add_failure(equation)
                metrics.failed.labels(stats.version).inc()
                continue
            checked[equation.operation] += 1
            expected = solve(equation)
            # Nearly all are right, and this comparison is cheaper than classifying.
            if result.text == expected and result.ended:
                stats.add(equation, None)
            else:
                self._count_wrong(stats, equation, result, expected)
        for operation, count in checked.items():
            metrics.checked.labels(stats.version, operation).inc(count)
        self._drift.add(batch.equations, stats.grammar)
        self._on_checked(stats)

    def _count_wrong(
        self, stats: VersionStats, equation: Equation, answer: Answer, expected: str
    ) -> None:
        metrics, version = self._metrics, stats.version
        outcome = classify(answer, expected, equation.operation, stats.grammar)
        stats.add(equation, outcome)
        metrics.wrong.labels(version, equation.operation).inc(outcome.wrong)
        metrics.hallucinations.labels(version).inc(outcome.hallucination)
        metrics.infinite.labels(version).inc(outcome.infinite_generation)
        metrics.out_of_range.labels(version).inc(outcome.out_of_range)
        self._mispredictions.write(stats, equation, answer, expected)


class Drift:
    """Compare about the latest 10,000 inputs with a reference; the monitor's thread adds."""

    def __init__(self, metrics: Metrics):
        self._gauge = metrics.drift
        self._grammar: Grammar | None = None
        self._reference: Profile = {}
        self._block: list[Equation] = []
        self._blocks: deque[Profile] = deque(maxlen=DRIFT_BLOCKS)
        self._lock = threading.Lock()
        self.psi: dict[str, float] = {}

    def set_reference(self, grammar: Grammar, reference: Profile) -> None:
        """Start again, unless grammar and reference are the same as before."""
        with self._lock:
            if (grammar, reference) != (self._grammar, self._reference):
                self._grammar, self._reference = grammar, reference
                self._block, self._blocks, self.psi = [], deque(maxlen=DRIFT_BLOCKS), {}

    def add(self, equations: Sequence[Equation], grammar: Grammar) -> None:
        """Count inputs; those of another grammar, from before a swap, are left out."""
        with self._lock:
            if grammar != self._grammar:
                return
            self._block += equations
            if len(self._block) >= DRIFT_BLOCK:
                block, self._block = self._block, []
                self._blocks.append(count_inputs(block, grammar))
                self._update()

    def _update(self) -> None:
        values = {}
        for feature, expected in self._reference.items():
            actual = {name: sum(b[feature][name] for b in self._blocks) for name in expected}
            values[feature] = round(psi(expected, actual), 4)
            self._gauge.labels(feature).set(values[feature])
        self.psi = values


def count_inputs(equations: Sequence[Equation], grammar: Grammar) -> Profile:
    """Return the input profile of some equations."""
    operands = {}
    for operation in grammar.operations:
        pairs = [(e.operand_1, e.operand_2) for e in equations if e.operation == operation]
        columns = np.array(pairs, np.int64).reshape(-1, 2)
        operands[operation] = columns[:, 0], columns[:, 1]
    return profile(operands, grammar)


class MispredictionLog:
    """Write wrong answers as JSON lines, each once for a model, into a rotating file."""

    def __init__(self, path: Path):
        self._handler = RotatingFileHandler(
            path, maxBytes=MISPREDICTION_BYTES, backupCount=1, delay=True, encoding="utf-8"
        )
        self._logger = logging.Logger("mispredictions")  # not in the tree of loggers
        self._logger.addHandler(self._handler)
        self._written: set[tuple[str, str]] = set()

    def write(self, stats: VersionStats, equation: Equation, answer: Answer, expected: str) -> None:
        """Write one wrong answer, unless it was written before."""
        key = stats.digest, str(equation)
        if key in self._written:
            return
        if len(self._written) >= 100_000:
            self._written.clear()
        if not self._written:
            log.warning("wrong answers are written to %s", self._handler.baseFilename)
        self._written.add(key)
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "equation": str(equation),
            "answer": answer.text,
            "expected": expected,
            "version": stats.version,
            "model_digest": stats.digest,
        }
        self._logger.info(json.dumps(entry))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
