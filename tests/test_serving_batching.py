"""Queues by operation: bounded, in time, nobody starves, and only the culprit fails."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from serving.batching import Batcher, Limits
from serving.metrics import Metrics
from serving.problems import ModelFailed, Overloaded, TooLate


def answer(equation: Equation) -> Answer:
    return Answer(str(equation), True, True, "")


class Model:
    """Answers with the question; notes its calls. Operations in `slow` wait for `gate`."""

    def __init__(self, slow: str = ""):
        self.slow = slow
        self.calls: list[list[Equation]] = []
        self.gate = threading.Event()

    def __call__(self, equations: Sequence[Equation]) -> list[Answer]:
        self.calls.append(list(equations))
        if equations[0].operation in self.slow:
            assert self.gate.wait(10)
        return [answer(equation) for equation in equations]

    async def called(self) -> None:
        """Until a first call is at work, in whichever thread."""
        while not self.calls:
            await asyncio.sleep(0.001)


def batcher(model: Model, heavy: str = "", metrics: Metrics | None = None, **limits) -> Batcher:
    made = Batcher(model, Limits(**limits), metrics or Metrics(), "7")
    made._heavy_operations = set(heavy)  # what `warm` finds out by measuring
    return made


def test_a_batch_holds_one_operation():
    model = Model()

    async def ask() -> None:
        queues = batcher(model)
        await asyncio.gather(*(queues.answer(Equation(n, "+-"[n % 2], 0)) for n in range(20)))

    asyncio.run(ask())
    assert sorted(len(call) for call in model.calls) == [10, 10]
    assert all(len({equation.operation for equation in call}) == 1 for call in model.calls)


def test_a_batch_holds_one_beam_width():
    """Greedy is the engine's default; other widths are passed on."""
    asked: list[tuple[int, tuple[int, ...]]] = []

    def model(equations: Sequence[Equation], *width: int) -> list[Answer]:
        asked.append((len(equations), width))
        return [answer(equation) for equation in equations]

    async def ask() -> None:
        queues = Batcher(model, Limits(), Metrics(), "7")
        await asyncio.gather(*(queues.answer(Equation(n, "+", 0), 1 + n % 3) for n in range(9)))

    asyncio.run(ask())
    assert sorted(asked) == [(3, ()), (3, (2,)), (3, (3,))]


def test_a_light_operation_does_not_wait_for_a_heavy_call():
    model = Model(slow="/")

    async def ask() -> None:
        queues = batcher(model, heavy="/")
        division = queues.submit(Equation(7, "/", 2))
        for n in range(5):
            assert (await queues.answer(Equation(n, "+", 0))).text == f"{n}+0="
        assert not division.done()
        model.gate.set()
        assert (await division).text == "7/2="

    asyncio.run(ask())


def test_heavy_operations_take_turns():
    """However many divisions wait, a product has its call after the next of them."""
    model = Model(slow="/*")
    model.gate.set()

    async def ask() -> None:
        queues = batcher(model, heavy="/*", largest_batch=4)
        futures = [queues.submit(Equation(n, "/", 1)) for n in range(40)]
        futures += [queues.submit(Equation(n, "*", 1)) for n in range(4)]
        await asyncio.gather(*futures)

    asyncio.run(ask())
    assert "*" in [call[0].operation for call in model.calls[:3]]


def test_singles_go_before_bulk_and_bulk_keeps_a_quarter():
    model = Model()

    async def ask() -> None:
        queues = batcher(model, largest_batch=8)
        bulk = queues.submit_many([Equation(n, "+", 1) for n in range(100)])
        singles = [queues.submit(Equation(n, "+", 2)) for n in range(12)]
        await asyncio.gather(*singles)
        assert not all(future.done() for future in bulk)
        await asyncio.gather(*bulk)

    asyncio.run(ask())
    first = [equation.operand_2 for equation in model.calls[0]]
    assert (first.count(2), first.count(1)) == (6, 2)
    assert all(len(call) == 8 for call in model.calls)


def test_past_its_limit_a_queue_refuses_at_once_and_the_others_do_not():
    model = Model(slow="/")
    metrics = Metrics()

    async def ask() -> None:
        queues = batcher(model, heavy="/", metrics=metrics, queue_limit=10, largest_batch=1)
        first = queues.submit(Equation(0, "/", 1))
        await model.called()  # and ten may wait
        waiting = [queues.submit(Equation(n, "/", 1)) for n in range(9)]
        with pytest.raises(Overloaded):
            queues.submit_many([Equation(1, "+", 1), Equation(1, "/", 1), Equation(99, "/", 1)])
        waiting.append(queues.submit(Equation(9, "/", 1)))
        with pytest.raises(Overloaded):
            queues.submit(Equation(1, "/", 1))
        assert queues.overloaded()
        assert (await queues.answer(Equation(1, "+", 1))).text == "1+1="
        model.gate.set()
        await asyncio.gather(first, *waiting)
        assert not queues.overloaded()

    asyncio.run(ask())
    assert Equation(99, "/", 1) not in [equation for call in model.calls for equation in call]


def test_whole_batches_that_gave_up_do_not_hold_up_those_behind_them():
    """No further question arrives, so nothing else would set the thread to work again."""
    model = Model(slow="/")

    async def ask() -> None:
        queues = batcher(model, heavy="/", largest_batch=2)
        first = queues.submit(Equation(1, "/", 1))
        await model.called()
        gave_up = [queues.submit(Equation(n, "/", 2)) for n in range(2, 6)]
        last = queues.submit(Equation(9, "/", 9))
        for future in gave_up:
            future.cancel()
        model.gate.set()
        assert (await first).text == "1/1="
        assert (await asyncio.wait_for(last, 5)).text == "9/9="

    asyncio.run(ask())


def test_what_could_not_be_answered_in_time_is_refused_at_once():
    """By how long the last calls took, not only by the length of the queue."""
    model = Model(slow="/")

    async def ask() -> None:
        queues = batcher(model, heavy="/", largest_batch=2, deadline_seconds=1.0)
        queues._open(("/", 1)).took(3.0, 4)  # 0.19 s each, as a moving average
        in_thread = queues.submit(Equation(1, "/", 1))
        await model.called()
        waiting = [queues.submit(Equation(n, "/", 2)) for n in range(2, 5)]
        with pytest.raises(Overloaded):
            queues.submit(Equation(9, "/", 9))
        assert (await queues.submit(Equation(9, "+", 9))).text == "9+9="
        model.gate.set()
        await asyncio.gather(in_thread, *waiting)

    asyncio.run(ask())


def test_many_are_taken_whole_or_not_at_all():
    """Room is asked for once: a refusal in the middle would leave work that nobody waits for."""
    model = Model(slow="/")

    async def ask() -> None:
        queues = batcher(model, heavy="/", largest_batch=2, deadline_seconds=1.0)
        queues._open(("/", 1)).took(3.0, 4)
        many = queues.submit_many([Equation(n, "/", 2) for n in range(20)])
        assert len(many) == 20
        await model.called()
        with pytest.raises(Overloaded):
            queues.submit_many([Equation(n, "/", 3) for n in range(20)])
        assert len(queues._queues["/", 1]) == 18
        model.gate.set()
        await asyncio.gather(*many)

    asyncio.run(ask())


def test_past_the_deadline_a_request_is_told_and_not_computed():
    model = Model(slow="/")

    async def ask() -> None:
        queues = batcher(model, heavy="/", deadline_seconds=0.5, largest_batch=1)
        running = queues.submit(Equation(0, "/", 1))
        await model.called()
        waiting = queues.submit(Equation(1, "/", 1))
        for future in (running, waiting):
            with pytest.raises(TooLate):
                await future
        model.gate.set()
        await asyncio.sleep(0.2)
        assert (await queues.answer(Equation(2, "/", 1))).text == "2/1="

    asyncio.run(ask())
    assert [str(call[0]) for call in model.calls] == ["0/1=", "2/1="]


@pytest.mark.parametrize("heavy", ["", "+"])
def test_of_a_failing_batch_only_the_culprits_fail(heavy):
    """64 neighbours, counted; inline and in the thread."""

    class Raises(Model):
        def __call__(self, equations: Sequence[Equation]) -> list[Answer]:
            if any(equation.operand_1 % 10 == 3 for equation in equations):
                raise RuntimeError("three")
            return super().__call__(equations)

    async def ask() -> list[Answer | BaseException]:
        queues = batcher(Raises(), heavy=heavy)
        return await asyncio.gather(
            *(queues.answer(Equation(n, "+", 0)) for n in range(64)), return_exceptions=True
        )

    results = asyncio.run(ask())
    failed = [n for n, result in enumerate(results) if isinstance(result, ModelFailed)]
    assert failed == [3, 13, 23, 33, 43, 53, 63]
    assert sum(isinstance(result, Answer) for result in results) == 57


def test_a_model_that_answers_too_few_fails_instead_of_mixing_answers_up():
    async def ask() -> list[Answer | BaseException]:
        queues = Batcher(lambda equations: [answer(equations[0])], Limits(), Metrics(), "7")
        asked = [queues.answer(Equation(n, "+", 0)) for n in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    results = asyncio.run(ask())
    assert [getattr(result, "text", result) for result in results] == ["0+0=", "1+0=", "2+0="]


def test_the_observer_sees_every_answer_and_cannot_harm():
    seen: list[tuple[str, str]] = []

    def observe(equations: Sequence[Equation], answers: Sequence[Answer]) -> None:
        seen.extend((str(e), a.text) for e, a in zip(equations, answers, strict=True))
        raise RuntimeError("a bug in checking")

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        queues = Batcher(Model(), Limits(), Metrics(), "7", observe)
        await asyncio.gather(*(queues.answer(Equation(n, "+-"[n % 2], 0)) for n in range(9)))
        await asyncio.sleep(0)
        assert (await queues.answer(Equation(9, "+", 9))).text == "9+9="
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert len(seen) == 10
    assert all(question == text for question, text in seen)


def test_what_the_model_raised_on_is_told_too():
    failures: list[str] = []

    def model(equations: Sequence[Equation]) -> list[Answer]:
        if any(equation.operand_1 == 3 for equation in equations):
            raise RuntimeError("a bug in a graph")
        return [answer(equation) for equation in equations]

    async def ask() -> None:
        tell = lambda equations: failures.extend(map(str, equations))  # noqa: E731
        queues = Batcher(model, Limits(), Metrics(), "7", None, tell)
        asked = [queues.answer(Equation(n, "+", 0)) for n in range(5)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, ModelFailed) for result in results) == 1
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert failures == ["3+0="]


def test_warming_up_finds_the_heavy_operations():
    def model(equations: Sequence[Equation]) -> list[Answer]:
        if equations[0].operation == "/":
            sum(range(2_000_000))  # some 20 ms of computing
        return [answer(equation) for equation in equations]

    made = Batcher(model, Limits(), Metrics(), "7")
    made.warm([[Equation(1, operation, 1)] for operation in "+/"])
    assert made._heavy_operations == {"/"}
