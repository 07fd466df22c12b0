"""Micro-batches that never wait, one queue for each operation.

A request that arrives while nothing else is going on is answered at once; requests that arrived in
the same turn of the event loop share one call of the model. Measured against a timer of 1 ms, this
is faster with one client and with 64 (docs/decisions.md).

Every queue is bounded: past its limit a request is refused at once, so that waiting never grows.
Singles go before `bulk` (POST /predict/batch), which keeps a quarter of each call.
"""

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from serving.metrics import Metrics
from serving.problems import ModelFailed, Overloaded, TooLate
from serving.queues import Queue, Waiting

log = logging.getLogger(__name__)

# Equations, and a beam width where it is not 1, to answers in order.
Answerer = Callable[..., list[Answer]]
# Told of every call of the model: equations and their answers, in the same order. It runs on the
# event loop right after the answers are given, so it must be quick.
Observer = Callable[[Sequence[Equation], Sequence[Answer]], None]

# Operations whose full batch computes longer than this go to the worker thread, where onnxruntime
# releases the GIL, so that light ones are answered meanwhile. Measured for 64: `+ -` 1.1-1.5 ms (in
# the four-operation model 2.0-2.9), × 15 ms, ÷ 17 ms.
INLINE_SECONDS = 0.006
# How long the event loop keeps the interpreter when the thread of a heavy operation needs it. With
# Python's 5 ms a flood of 2,000 connections left that thread 1,081 answers, one in ten of them
# late; so 1,294, none late. Where no operation has been heavy it stays at 5 ms.
SWITCH_SECONDS = 0.0005
# Of the deadline, the part that a queue may take by what its last calls took.
PATIENCE = 0.4
# How often waiting requests are looked at for a passed deadline.
SWEEP_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """Attributes:
    largest_batch: most equations in one call of the model.
    queue_limit: most equations that wait, for each operation.
    deadline_seconds: longest time from question to answer.
    """

    largest_batch: int = 64
    queue_limit: int = 4096
    deadline_seconds: float = 5.0


class Batcher:
    """Collects equations and answers them together. Belongs to one event loop."""

    def __init__(
        self,
        answer: Answerer,
        limits: Limits,
        metrics: Metrics,
        version: str,
        observe: Observer | None = None,
        failed: Callable[[Sequence[Equation]], None] | None = None,
    ):
        """`failed` is told of equations on which the model raised, as `observe` of answers."""
        self._answer = answer
        self._limits = limits
        self._metrics = metrics
        self._version = version
        self._observe, self._failed = observe, failed
        self._queues: dict[tuple[str, int], Queue] = {}
        self._heavy_operations: set[str] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._in_thread: list[Waiting] = []
        self._scheduled = False
        self._arrived = self._seen = 0  # since the last call; and of those, known a turn ago
        self._sweeping = False

    def warm(self, batches: Sequence[Sequence[Equation]]) -> None:
        """Answer full batches, each of one operation, and note which are too slow for the loop.

        May run in another thread, before the first request.
        """
        for batch in batches:
            seconds = min(self._seconds(batch) for _ in range(3))
            if seconds > INLINE_SECONDS:
                self._heavy_operations.add(batch[0].operation)
        if self._heavy_operations:
            sys.setswitchinterval(SWITCH_SECONDS)

    def _seconds(self, batch: Sequence[Equation]) -> float:
        # Of this thread's own computing, so that a busy machine does not make an operation heavy.
        started = time.thread_time()
        self._answer(batch)
        return time.thread_time() - started

    async def answer(self, equation: Equation, beam_width: int = 1) -> Answer:
        """The model's answer.

        Raises:
            Overloaded: too many wait already.
            TooLate: the deadline passed.
            ModelFailed: the model raised on this equation.
        """
        return await self.submit(equation, beam_width)

    def submit(
        self, equation: Equation, beam_width: int = 1, bulk: bool = False
    ) -> "asyncio.Future[Answer]":
        """Like `answer`, without waiting; raises Overloaded at once."""
        loop = asyncio.get_running_loop()
        queue = self._open((equation.operation, beam_width))
        self._room_for(queue, 1)
        return self._put(queue, equation, bulk, loop)

    def _put(
        self, queue: Queue, equation: Equation, bulk: bool, loop: asyncio.AbstractEventLoop
    ) -> "asyncio.Future[Answer]":
        future: asyncio.Future[Answer] = loop.create_future()
        waiting = equation, future, loop.time() + self._limits.deadline_seconds
        (queue.bulk if bulk else queue.singles).append(waiting)
        self._arrived += 1
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def submit_many(
        self, equations: Sequence[Equation], beam_width: int = 1
    ) -> list["asyncio.Future[Answer]"]:
        """All behind the single ones, or none: raises Overloaded if there is not room for all."""
        loop = asyncio.get_running_loop()
        queues = {}
        for operation, count in Counter(e.operation for e in equations).items():
            queues[operation] = self._open((operation, beam_width))
            self._room_for(queues[operation], count)
        return [self._put(queues[e.operation], e, True, loop) for e in equations]

    def _room_for(self, queue: Queue, count: int) -> None:
        waiting = len(queue)
        # Also what could not be answered in time is refused at once: in a flood of 2,000
        # connections the thread of a heavy operation gets little of the interpreter, and half of a
        # full queue was answered too late.
        late = waiting * queue.seconds_each > self._limits.deadline_seconds * PATIENCE
        if waiting + count > self._limits.queue_limit or (
            late and waiting >= self._limits.largest_batch
        ):
            raise Overloaded(
                f"{waiting} equations wait already; come back in a second, or send fewer"
            )

    def overloaded(self) -> bool:
        """Some queue is nine tenths full."""
        return any(10 * len(q) > 9 * self._limits.queue_limit for q in self._queues.values())

    def _open(self, key: tuple[str, int]) -> Queue:
        if key not in self._queues:
            operation, width = key
            heavy = width > 1 or operation in self._heavy_operations
            metrics = self._metrics
            self._queues[key] = Queue(
                operation,
                width,
                heavy,
                metrics.batch_size.labels(operation),
                metrics.queue_depth.labels(operation),
                metrics.answers.labels(self._version, operation),
            )
        return self._queues[key]

    def _flush(self) -> None:
        """One call for every light operation that has something, and one to the thread.

        As long as turns of the loop bring more, it lets one more turn pass (a poll that does not
        wait): one client loses 10 µs by that, 64 get batches twice as large.
        """
        if self._arrived < self._limits.largest_batch and self._arrived != self._seen:
            self._seen = self._arrived
            asyncio.get_running_loop().call_soon(self._flush)
            return
        self._arrived = self._seen = 0
        self._scheduled = False
        for queue in self._queues.values():
            if queue.heavy or not len(queue):
                continue
            batch = queue.take(self._limits.largest_batch)
            if batch:
                started = time.perf_counter()
                self._settle(queue, batch, self._results(queue, batch))
                queue.took(time.perf_counter() - started, len(batch))
            if len(queue) and not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._flush)
        self._feed_thread()

    def _feed_thread(self) -> None:
        """Hand the thread its next call, from the heavy queues in turn."""
        if self._in_thread:
            return
        for key, queue in list(self._queues.items()):
            if not queue.heavy or not len(queue):
                continue
            self._queues[key] = self._queues.pop(key)  # last in line for the next turn
            batch: list[Waiting] = []
            while len(queue) and not batch:  # whole batches can have given up meanwhile
                batch = queue.take(self._limits.largest_batch)
            if batch:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "heavy")
                self._in_thread = batch
                loop = asyncio.get_running_loop()
                call = loop.run_in_executor(self._thread, self._results, queue, batch)
                call.add_done_callback(partial(self._back, queue, batch, time.perf_counter()))
                return

    def _back(
        self,
        queue: Queue,
        batch: list[Waiting],
        started: float,
        done: "asyncio.Future[list[Answer | Exception]]",
    ) -> None:
        self._in_thread = []
        self._settle(queue, batch, done.result())
        queue.took(time.perf_counter() - started, len(batch))
        self._feed_thread()

    def _results(self, queue: Queue, batch: list[Waiting]) -> list[Answer | Exception]:
        """Answers in order; where the call fails, each alone, so that only the culprit fails."""
        try:
            return [*self._call(queue, [equation for equation, _, _ in batch])]
        except Exception as error:
            if len(batch) == 1:
                log.exception("the model failed on %s", batch[0][0])
                return [error]
            log.warning("a batch of %d failed; answering one by one", len(batch), exc_info=error)
            return [result for item in batch for result in self._results(queue, [item])]

    def _call(self, queue: Queue, equations: list[Equation]) -> list[Answer]:
        answers = (
            self._answer(equations) if queue.width == 1 else self._answer(equations, queue.width)
        )
        if len(answers) != len(equations):
            raise ValueError(f"{len(answers)} answers to {len(equations)} equations")
        return answers

    def _settle(
        self, queue: Queue, batch: list[Waiting], results: list[Answer | Exception]
    ) -> None:
        answered: list[tuple[Equation, Answer]] = []
        failures: list[Equation] = []
        for (equation, future, _), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                failures.append(equation)
                if not future.done():
                    failed = ModelFailed(
                        f"the model failed on {equation}; nothing else was affected, and the "
                        "service's log says why"
                    )
                    failed.__cause__ = result
                    future.set_exception(failed)
                continue
            answered.append((equation, result))
            if not future.done():  # its client has gone, or its deadline passed
                future.set_result(result)
        queue.size.observe(len(batch))
        queue.depth.set(len(queue))
        queue.answers.inc(len(answered))
        if self._observe is not None and answered:
            asyncio.get_running_loop().call_soon(
                self._observe, [e for e, _ in answered], [a for _, a in answered]
            )
        if self._failed is not None and failures:
            asyncio.get_running_loop().call_soon(self._failed, failures)

    def _sweep(self) -> None:
        """Tell whoever waited past the deadline. Armed only while something waits."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = list(self._in_thread)
        for queue in self._queues.values():
            queue.depth.set(len(queue))
            for line in (queue.singles, queue.bulk):
                waiting += line
        for _, future, deadline in waiting:
            if deadline < now and not future.done():
                future.set_exception(
                    TooLate(
                        f"no answer within {self._limits.deadline_seconds:g} s; "
                        "the service is busy, try again"
                    )
                )
        if waiting:
            loop.call_later(SWEEP_SECONDS, self._sweep)
        else:
            self._sweeping = False
