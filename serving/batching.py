"""Micro-batches that never wait.

A request that arrives while nothing else is going on is answered at once; requests that arrived in
the same turn of the event loop share one call of the model. Measured against a timer of 1 ms, this
is faster with one client and with 64 (docs/decisions.md).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer

log = logging.getLogger(__name__)

Answerer = Callable[[Sequence[Equation]], list[Answer]]


class Batcher:
    """Collects equations and answers them together, on the event loop's own thread.

    A call of the model takes 0.4 ms alone and 4 ms for 64; handing it to another thread would cost
    more than it frees.
    """

    def __init__(self, answer: Answerer, largest_batch: int):
        self._answer = answer
        self._largest = largest_batch
        self._waiting: deque[tuple[Equation, asyncio.Future[Answer]]] = deque()

    async def answer(self, equation: Equation) -> Answer:
        """The model's answer; raises what the model raised for this equation, if it did."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((equation, future))
        return await future

    def _flush(self) -> None:
        count = min(self._largest, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        batch = [(equation, future) for equation, future in batch if not future.done()]
        if batch:
            self._run(batch)

    def _run(self, batch: list[tuple[Equation, "asyncio.Future[Answer]"]]) -> None:
        try:
            answers = self._answer([equation for equation, _ in batch])
        except Exception as error:  # whatever one equation does must not reach its neighbours
            if len(batch) == 1:
                log.exception("the model failed on %s", batch[0][0])
                batch[0][1].set_exception(error)
                return
            log.warning("a batch of %d failed; answering one by one", len(batch))
            for item in batch:
                self._run([item])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
