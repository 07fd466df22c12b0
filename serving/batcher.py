"""Batch requests without a timer, one bounded queue for each sequence format.

A request that arrives alone is answered at once; requests that arrive in the same turns of the
event loop share one call of the model. Measured against a timer of 1 ms, this is faster with one
client and with 64. Past the limit of its queue a request fails at once with 503, so that the wait
stays bounded. Single questions go before bulk ones (POST /predict/batch), which keep a quarter of
each call: behind bulk, single ones miss their deadline under overload.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import Gauge, Histogram

from arithmetic.formats import Answer, get_format, get_formats
from arithmetic.grammar import Equation, Grammar
from serving.error_handlers import DeadlineExceededError, ModelFailedError, OverloadedError
from serving.metrics import Metrics
from serving.settings import Settings

log = logging.getLogger(__name__)

Result = Answer | Exception
AnswerFunction = Callable[[Sequence[Equation]], list[Answer]]
# Runs on the event loop after each call of the model, with the equations and their results.
OnBatch = Callable[[Sequence[Equation], Sequence[Result]], None]

# A format that generates more times the tokens of the shortest one than this runs in a worker
# thread, where onnxruntime releases the GIL: the light ones are answered meanwhile.
HEAVY = 2
# Fraction of the deadline that a queue may hold, by the time that its last calls took.
PATIENCE = 0.4
SWEEP_SECONDS = 0.05


class Pending(NamedTuple):
    """Hold an equation, the future of its answer, and its deadline in the event loop's time."""

    equation: Equation
    future: "asyncio.Future[Answer]"
    deadline: float


@dataclass(eq=False)
class Queue:
    """Collect the equations of one format and answer them together.

    Attributes:
        thread: computes; None: the event loop does.
        seconds_each: moving average of a call's time for each equation.
    """

    answer: AnswerFunction
    settings: Settings
    on_batch: OnBatch
    thread: ThreadPoolExecutor | None
    batch_size: Histogram
    depth: Gauge
    seconds_each: float = 0.0
    singles: deque[Pending] = field(default_factory=deque)
    bulk: deque[Pending] = field(default_factory=deque)
    _in_thread: Sequence[Pending] = ()
    _is_scheduled: bool = False
    _is_sweeping: bool = False
    _arrived: int = 0  # since the last call
    _seen: int = 0  # of them in the turn before

    def __len__(self) -> int:
        return len(self.singles) + len(self.bulk)

    def check_room(self, count: int) -> None:
        """Raise OverloadedError if `count` more cannot wait, or not be answered in time."""
        waiting, settings = len(self), self.settings
        is_late = waiting * self.seconds_each > settings.deadline_seconds * PATIENCE
        if waiting + count > settings.queue_limit or (
            is_late and waiting >= settings.max_batch_size
        ):
            raise OverloadedError(f"{waiting} equations are waiting; retry in a second")

    def put(self, line: deque[Pending], equation: Equation) -> "asyncio.Future[Answer]":
        """Add an equation to `singles` or `bulk`; return the future of its answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        line.append(Pending(equation, future, loop.time() + self.settings.deadline_seconds))
        self._arrived += 1
        self._schedule()
        if not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Call the model.

        While turns of the loop bring more, one more turn passes (a poll that does not wait): a
        single client loses 10 µs by it, 64 get batches twice as large.
        """
        loop = asyncio.get_running_loop()
        if self._arrived < self.settings.max_batch_size and self._arrived != self._seen:
            self._seen = self._arrived
            loop.call_soon(self._flush)
            return
        self._arrived = self._seen = 0
        self._is_scheduled = False
        if self._in_thread:  # the end of that call schedules the next
            return
        batch, started = self._take(), time.perf_counter()
        if not batch:
            return
        if self.thread is None:
            self._settle(batch, self._compute(batch), started)
        else:
            self._in_thread = batch
            call = loop.run_in_executor(self.thread, self._compute, batch)
            call.add_done_callback(lambda call: self._settle(batch, call.result(), started))

    def _take(self) -> list[Pending]:
        """Remove the next batch, without entries whose future is done already."""
        batch: list[Pending] = []
        limit = self.settings.max_batch_size
        reserved = min(len(self.bulk), max(1, limit // 4))
        for line, size in ((self.singles, limit - reserved), (self.bulk, limit)):
            while line and len(batch) < size:
                pending = line.popleft()
                if not pending.future.done():
                    batch.append(pending)
        return batch

    def _compute(self, batch: Sequence[Pending]) -> list[Result]:
        """Return results in order; if a call fails, each alone, so only the failing item fails."""
        try:
            answers = self.answer([pending.equation for pending in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(answers)} answers to {len(batch)} equations")
            return [*answers]
        except Exception as error:
            if len(batch) == 1:
                log.exception("the model failed on %s", batch[0].equation)
                return [error]
            log.warning("a batch of %d failed; answering one by one", len(batch), exc_info=error)
            return [result for pending in batch for result in self._compute([pending])]

    def _settle(self, batch: Sequence[Pending], results: list[Result], started: float) -> None:
        self._in_thread = ()
        for (equation, future, _), result in zip(batch, results, strict=True):
            if future.done():  # the client has gone, or the deadline passed
                continue
            if isinstance(result, Exception):
                failed = ModelFailedError(f"the model failed on {equation}; see the service's log")
                failed.__cause__ = result
                future.set_exception(failed)
            else:
                future.set_result(result)
        seconds = time.perf_counter() - started
        self.seconds_each += (seconds / len(batch) - self.seconds_each) / 4
        self.batch_size.observe(len(batch))
        self.depth.set(len(self))
        equations = [pending.equation for pending in batch]
        asyncio.get_running_loop().call_soon(self.on_batch, equations, results)
        if len(self):
            self._schedule()

    def _sweep(self) -> None:
        """Fail what waited past its deadline; armed only while something waits."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.depth.set(len(self))
        waiting = [*self._in_thread, *self.singles, *self.bulk]
        for _, future, deadline in waiting:
            if deadline < now and not future.done():
                seconds = f"{self.settings.deadline_seconds:g}"
                future.set_exception(DeadlineExceededError(f"no answer within {seconds} s"))
        if waiting:
            loop.call_later(SWEEP_SECONDS, self._sweep)
        else:
            self._is_sweeping = False


class Batcher:
    """Distribute equations to the queues of their formats; belongs to one event loop."""

    def __init__(
        self,
        answer: AnswerFunction,
        grammar: Grammar,
        settings: Settings,
        metrics: Metrics,
        on_batch: OnBatch,
    ):
        self._queue_limit = settings.queue_limit
        thread = ThreadPoolExecutor(1, "heavy")
        lengths = {f: f.lengths(grammar.digits).generated for f in get_formats(grammar.operations)}
        limit = HEAVY * min(lengths.values())
        self._queues = {
            fmt.name: Queue(
                answer,
                settings,
                on_batch,
                thread if length > limit else None,
                metrics.batch_size.labels(fmt.name),
                metrics.queue_depth.labels(fmt.name),
            )
            for fmt, length in lengths.items()
        }

    def get_queue(self, equation: Equation) -> Queue:
        """Return the queue of an equation's format."""
        return self._queues[get_format(equation.operation).name]

    def submit(self, equation: Equation) -> "asyncio.Future[Answer]":
        """Return the future of an answer.

        Raises:
            OverloadedError: at once, if too many equations wait. The future fails with
                DeadlineExceededError or ModelFailedError.
        """
        queue = self.get_queue(equation)
        queue.check_room(1)
        return queue.put(queue.singles, equation)

    def submit_many(self, equations: Sequence[Equation]) -> list["asyncio.Future[Answer]"]:
        """Enqueue all equations behind the single ones, or raise OverloadedError and none."""
        queues = [self.get_queue(equation) for equation in equations]
        for queue, count in Counter(queues).items():
            queue.check_room(count)
        return [q.put(q.bulk, equation) for q, equation in zip(queues, equations, strict=True)]

    @property
    def is_overloaded(self) -> bool:
        """Return whether a queue is nine tenths full."""
        return any(len(queue) > 0.9 * self._queue_limit for queue in self._queues.values())
