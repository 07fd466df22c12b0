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
from collections.abc import Sequence
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import numpy as np
from prometheus_client import Gauge

from arithmetic.formats import Answer, classify
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


class Drift:
    """Compare about the latest 10,000 inputs of a version with its training data."""

    def __init__(self, grammar: Grammar, reference: Profile, gauge: Gauge):
        self._grammar, self._reference, self._gauge = grammar, reference, gauge
        self._block: list[Equation] = []
        self._blocks: deque[Profile] = deque(maxlen=DRIFT_BLOCKS)
        self.psi: dict[str, float] = {}  # by feature; empty before the first block

    def add(self, equations: Sequence[Equation]) -> None:
        """Count inputs; compare after each block of them."""
        self._block += equations
        if len(self._block) < DRIFT_BLOCK:
            return
        self._blocks.append(count_inputs(self._block, self._grammar))
        self._block = []
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


class VersionStats:
    """Count the checked answers of one loaded version, in the monitor's thread.

    The error rate that can reject a version is over the latest `WINDOW` *distinct* questions: a
    question that is answered wrongly counts once, so repeating it cannot bring a version down.
    """

    def __init__(self, version: str, digest: str, grammar: Grammar, drift: Drift):
        self.version, self.digest, self.grammar, self.drift = version, digest, grammar, drift
        self.counts: Counter[str] = Counter()
        self._window: dict[Equation, bool] = {}
        self._wrong_in_window = 0

    def add_question(self, equation: Equation, is_wrong: bool) -> bool:
        """Add a question to the error rate; return whether it is new among the latest ones."""
        if equation in self._window:
            return False
        self._window[equation] = is_wrong
        self._wrong_in_window += is_wrong
        if len(self._window) > WINDOW:
            self._wrong_in_window -= self._window.pop(next(iter(self._window)))
        return True

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


Batch = tuple[VersionStats, Sequence[Equation], Sequence[Result]]


class Monitor:
    """Check answers in a background thread; count into /metrics and the version's stats."""

    def __init__(self, metrics: Metrics, mispredictions: Path, queue_size: int):
        self._metrics, self._queue_size = metrics, queue_size
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._submitted = 0  # written by the event loop's thread only
        self._checked = 0  # and by the monitor's
        self._file = RotatingFileHandler(
            mispredictions,
            maxBytes=MISPREDICTION_BYTES,
            backupCount=1,
            delay=True,
            encoding="utf-8",
        )
        self._mispredictions = logging.Logger("mispredictions")  # not in the tree of loggers
        self._mispredictions.addHandler(self._file)
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Check what waits, for `timeout` seconds at most."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._file.close()

    @property
    def waiting(self) -> int:
        """Return how many answers wait to be checked."""
        return self._submitted - self._checked

    def submit(
        self, stats: VersionStats, equations: Sequence[Equation], results: Sequence[Result]
    ) -> None:
        """Enqueue a batch without waiting; where there is no room it stays unchecked."""
        if self.waiting + len(equations) <= self._queue_size:
            self._submitted += len(equations)
            self._queue.put((stats, equations, results))
        else:
            stats.counts["unchecked"] += len(equations)
            self._metrics.unchecked.labels(stats.version).inc(len(equations))

    def _run(self) -> None:
        since_pause = 0
        while (batch := self._queue.get()) is not None:
            try:
                self._check(*batch)
            except Exception:  # a bug in one check must not end all others
                log.exception("an answer could not be checked")
            count = len(batch[1])
            self._checked += count
            since_pause += count
            if since_pause >= CHECKS_AT_A_TIME:
                since_pause = 0
                time.sleep(PAUSE_SECONDS)

    def _check(
        self, stats: VersionStats, equations: Sequence[Equation], results: Sequence[Result]
    ) -> None:
        metrics = self._metrics
        checked: Counter[str] = Counter()
        for equation, result in zip(equations, results, strict=True):
            if isinstance(result, Exception):
                stats.counts["failed"] += 1
                stats.add_question(equation, is_wrong=True)
                metrics.failed.labels(stats.version).inc()
                continue
            checked[equation.operation] += 1
            expected = solve(equation)
            # Nearly all are right, and this comparison is cheaper than classifying.
            if result.text == expected and result.ended:
                stats.add_question(equation, is_wrong=False)
            else:
                self._count_wrong(stats, equation, result, expected)
        for operation, count in checked.items():
            stats.counts["checked"] += count
            metrics.checked.labels(stats.version, operation).inc(count)
        stats.drift.add(equations)

    def _count_wrong(
        self, stats: VersionStats, equation: Equation, answer: Answer, expected: str
    ) -> None:
        metrics, version = self._metrics, stats.version
        outcome = classify(answer, expected, equation.operation, stats.grammar)
        stats.counts.update(outcome._asdict())
        metrics.wrong.labels(version, equation.operation).inc(outcome.wrong)
        metrics.hallucinations.labels(version).inc(outcome.hallucination)
        metrics.infinite.labels(version).inc(outcome.infinite_generation)
        metrics.out_of_range.labels(version).inc(outcome.out_of_range)
        if not stats.add_question(equation, outcome.wrong):
            return  # written before
        if stats.counts["wrong"] == 1:
            log.warning("wrong answers are written to %s", self._file.baseFilename)
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "equation": str(equation),
            "answer": answer.text,
            "expected": expected,
            "version": version,
            "model_digest": stats.digest,
        }
        self._mispredictions.info(json.dumps(entry))
