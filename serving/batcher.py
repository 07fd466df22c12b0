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
from functools import partial
from typing import NamedTuple

from prometheus_client import Gauge, Histogram

from arithmetic.formats import Answer, get_format
from arithmetic.grammar import Equation
from serving.error_handlers import DeadlineExceededError, ModelFailedError, OverloadedError
from serving.metrics import Metrics

log = logging.getLogger(__name__)

Result = Answer | Exception
# Runs on the event loop after each call of the model, with the equations and their results.
OnBatch = Callable[[Sequence[Equation], Sequence[Result]], None]

# A format whose full batch computes longer than this, and than twice the lightest one's, runs in a
# worker thread, where onnxruntime releases the GIL: the light ones are answered meanwhile.
INLINE_SECONDS = 0.006
# Fraction of the deadline that a queue may hold, by the time that its last calls took.
PATIENCE = 0.4
SWEEP_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """Bound batches, queues and waiting time."""

    max_batch_size: int = 64
    queue_limit: int = 4096
    deadline_seconds: float = 5.0


class Pending(NamedTuple):
    """Hold an equation, the future of its answer, and its deadline in the event loop's time."""

    equation: Equation
    future: "asyncio.Future[Answer]"
    deadline: float


@dataclass
class Queue:
    """Hold what waits for calls of one format; `seconds_each` is a moving average."""

    name: str
    is_heavy: bool
    batch_size: Histogram
    depth: Gauge
    singles: deque[Pending] = field(default_factory=deque)
    bulk: deque[Pending] = field(default_factory=deque)
    seconds_each: float = 0.0

    def __len__(self) -> int:
        return len(self.singles) + len(self.bulk)

    def take(self, limit: int) -> list[Pending]:
        """Remove the next batch, without entries whose future is done already."""
        batch: list[Pending] = []
        reserved = min(len(self.bulk), max(1, limit // 4))
        for line, size in ((self.singles, limit - reserved), (self.bulk, limit)):
            while line and len(batch) < size:
                pending = line.popleft()
                if not pending.future.done():
                    batch.append(pending)
        return batch


class Batcher:
    """Collect equations and answer them together; belongs to one event loop."""

    def __init__(
        self,
        answer: Callable[[Sequence[Equation]], list[Answer]],
        limits: Limits,
        metrics: Metrics,
        on_batch: OnBatch,
    ):
        self._answer, self._limits, self._metrics = answer, limits, metrics
        self._on_batch = on_batch
        self._queues: dict[str, Queue] = {}
        self.heavy_formats: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "heavy")
        self._in_thread: list[Pending] = []
        self._is_scheduled = self._is_sweeping = False
        self._arrived = self._seen = 0  # since the last call; and as of the turn before

    def warm_up(self, batches: Sequence[Sequence[Equation]]) -> None:
        """Answer full batches, one for each format, and find the formats too slow for the loop.

        Runs in the poller's thread, before the first request.
        """
        seconds = {get_format(b[0].operation).name: self._measure(b) for b in batches}
        threshold = max(INLINE_SECONDS, 2 * min(seconds.values()))
        self.heavy_formats = {name for name, value in seconds.items() if value > threshold}

    def _measure(self, batch: Sequence[Equation]) -> float:
        # This thread's CPU time, so that a busy machine does not make a format heavy.
        times = []
        for _ in range(3):
            started = time.thread_time()
            self._answer(batch)
            times.append(time.thread_time() - started)
        return min(times)

    def submit(self, equation: Equation) -> "asyncio.Future[Answer]":
        """Return the future of an answer.

        Raises:
            OverloadedError: at once, if too many equations wait. The future fails with
                DeadlineExceededError or ModelFailedError.
        """
        queue = self._get_queue(get_format(equation.operation).name)
        self._check_room(queue, 1)
        return self._enqueue(queue.singles, equation)

    def submit_many(self, equations: Sequence[Equation]) -> list["asyncio.Future[Answer]"]:
        """Enqueue all equations behind the single ones, or raise OverloadedError and none."""
        queues = [self._get_queue(get_format(e.operation).name) for e in equations]
        for name, count in Counter(queue.name for queue in queues).items():
            self._check_room(self._queues[name], count)
        return [
            self._enqueue(queue.bulk, equation)
            for queue, equation in zip(queues, equations, strict=True)
        ]

    @property
    def is_overloaded(self) -> bool:
        """Return whether a queue is nine tenths full."""
        limit = 0.9 * self._limits.queue_limit
        return any(len(queue) > limit for queue in self._queues.values())

    def _get_queue(self, name: str) -> Queue:
        if name not in self._queues:
            size, depth = self._metrics.batch_size, self._metrics.queue_depth
            is_heavy = name in self.heavy_formats
            self._queues[name] = Queue(name, is_heavy, size.labels(name), depth.labels(name))
        return self._queues[name]

    def _check_room(self, queue: Queue, count: int) -> None:
        waiting = len(queue)
        # Equations that cannot be answered in time are rejected at once, too.
        is_late = waiting * queue.seconds_each > self._limits.deadline_seconds * PATIENCE
        if waiting + count > self._limits.queue_limit or (
            is_late and waiting >= self._limits.max_batch_size
        ):
            raise OverloadedError(f"{waiting} equations are waiting; retry in a second")

    def _enqueue(self, line: deque[Pending], equation: Equation) -> "asyncio.Future[Answer]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        line.append(Pending(equation, future, loop.time() + self._limits.deadline_seconds))
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
        """Call the model once for every light queue, and start the thread's next call.

        While turns of the loop bring more, one more turn passes (a poll that does not wait): a
        single client loses 10 µs by it, 64 get batches twice as large.
        """
        loop = asyncio.get_running_loop()
        if self._arrived < self._limits.max_batch_size and self._arrived != self._seen:
            self._seen = self._arrived
            loop.call_soon(self._flush)
            return
        self._arrived = self._seen = 0
        self._is_scheduled = False
        for queue in self._queues.values():
            if queue.is_heavy or not len(queue):
                continue
            batch = queue.take(self._limits.max_batch_size)
            if batch:
                started = time.perf_counter()
                results = self._compute(batch)
                self._settle(queue, batch, results, time.perf_counter() - started)
            if len(queue):
                self._schedule()
        self._start_thread_call()

    def _start_thread_call(self) -> None:
        """Start the thread's next call, from the heavy queues in turn."""
        if self._in_thread:
            return
        for name, queue in [*self._queues.items()]:
            if queue.is_heavy and (batch := queue.take(self._limits.max_batch_size)):
                self._queues[name] = self._queues.pop(name)  # last in line for the next call
                self._in_thread = batch
                loop = asyncio.get_running_loop()
                call = loop.run_in_executor(self._thread, self._compute, batch)
                call.add_done_callback(partial(self._on_thread_done, queue, time.perf_counter()))
                return

    def _on_thread_done(
        self, queue: Queue, started: float, call: "asyncio.Future[list[Result]]"
    ) -> None:
        batch, self._in_thread = self._in_thread, []
        self._settle(queue, batch, call.result(), time.perf_counter() - started)
        self._start_thread_call()

    def _compute(self, batch: Sequence[Pending]) -> list[Result]:
        """Return results in order; if a call fails, each alone, so only the failing item fails."""
        try:
            answers = self._answer([pending.equation for pending in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(answers)} answers to {len(batch)} equations")
            return [*answers]
        except Exception as error:
            if len(batch) == 1:
                log.exception("the model failed on %s", batch[0].equation)
                return [error]
            log.warning("a batch of %d failed; answering one by one", len(batch), exc_info=error)
            return [result for pending in batch for result in self._compute([pending])]

    def _settle(
        self, queue: Queue, batch: Sequence[Pending], results: list[Result], seconds: float
    ) -> None:
        for (equation, future, _), result in zip(batch, results, strict=True):
            if future.done():  # the client has gone, or the deadline passed
                continue
            if isinstance(result, Exception):
                failed = ModelFailedError(f"the model failed on {equation}; see the service's log")
                failed.__cause__ = result
                future.set_exception(failed)
            else:
                future.set_result(result)
        queue.seconds_each += (seconds / len(batch) - queue.seconds_each) / 4
        queue.batch_size.observe(len(batch))
        queue.depth.set(len(queue))
        equations = [pending.equation for pending in batch]
        asyncio.get_running_loop().call_soon(self._on_batch, equations, results)

    def _sweep(self) -> None:
        """Fail what waited past its deadline; armed only while something waits."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = list(self._in_thread)
        for queue in self._queues.values():
            queue.depth.set(len(queue))
            waiting += [*queue.singles, *queue.bulk]
        for _, future, deadline in waiting:
            if deadline < now and not future.done():
                seconds = f"{self._limits.deadline_seconds:g}"
                future.set_exception(DeadlineExceededError(f"no answer within {seconds} s"))
        if waiting:
            loop.call_later(SWEEP_SECONDS, self._sweep)
        else:
            self._is_sweeping = False
