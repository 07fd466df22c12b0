"""Queues by sequence format: bounded, in time, nobody starves, and only the failing item fails."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from arithmetic.formats import Answer
from arithmetic.grammar import Equation, Grammar
from serving.batcher import Batcher
from serving.error_handlers import DeadlineExceededError, ModelFailedError, OverloadedError
from serving.metrics import Metrics
from serving.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def answer(equation: Equation) -> Answer:
    return Answer(str(equation), True, True, "")


def many(count: int, operation: str, b: int) -> list[Equation]:
    return [Equation(n, operation, b) for n in range(count)]


class Model:
    """Answer with the question and record the calls; operations in `slow` wait for `gate`."""

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
        while not self.calls:
            await asyncio.sleep(0.001)


def make_batcher(model, on_batch=lambda *_: None, **limits) -> Batcher:
    """Return a batcher that computes * and / in its thread."""
    settings = Settings.model_construct(**limits)  # smaller limits than are allowed
    return Batcher(model, Grammar(tuple("+-*/"), 999), settings, Metrics(), on_batch)


async def test_a_batch_holds_one_format_and_plus_and_minus_share_theirs():
    model = Model()
    batcher = make_batcher(model)
    await asyncio.gather(*(batcher.submit(Equation(n, "+-*/"[n % 4], 1)) for n in range(40)))
    operations = sorted("".join(sorted({e.operation for e in call})) for call in model.calls)
    assert operations == ["*", "+-", "/"]


async def test_a_light_format_does_not_wait_for_a_heavy_call():
    model = Model(slow="/")
    batcher = make_batcher(model)
    division = batcher.submit(Equation(7, "/", 2))
    for equation in many(5, "+", 0):
        assert await batcher.submit(equation) == answer(equation)
    assert not division.done()
    model.gate.set()
    assert (await division).text == "7/2="


async def test_heavy_formats_take_turns():
    model = Model()
    batcher = make_batcher(model, max_batch_size=4)
    await asyncio.gather(*map(batcher.submit, many(40, "/", 1) + many(4, "*", 1)))
    assert "*" in [call[0].operation for call in model.calls[:3]]


async def test_singles_go_before_bulk_and_bulk_keeps_a_quarter():
    model = Model()
    batcher = make_batcher(model, max_batch_size=8)
    bulk = batcher.submit_many(many(100, "+", 1))
    await asyncio.gather(*map(batcher.submit, many(12, "+", 2)))
    assert not all(future.done() for future in bulk)
    await asyncio.gather(*bulk)
    first = [equation.operand_2 for equation in model.calls[0]]
    assert (first.count(2), first.count(1)) == (6, 2)
    assert all(len(call) == 8 for call in model.calls)


async def test_past_its_limit_a_queue_rejects_at_once_and_the_others_do_not():
    model = Model(slow="/")
    batcher = make_batcher(model, queue_limit=10, max_batch_size=1)
    first = batcher.submit(Equation(0, "/", 1))
    await model.called()  # and ten may wait
    waiting = [batcher.submit(equation) for equation in many(9, "/", 1)]
    with pytest.raises(OverloadedError):
        batcher.submit_many([Equation(1, "+", 1), Equation(1, "/", 1), Equation(99, "/", 1)])
    waiting.append(batcher.submit(Equation(9, "/", 1)))
    with pytest.raises(OverloadedError):
        batcher.submit(Equation(1, "/", 1))
    assert batcher.is_overloaded
    assert (await batcher.submit(Equation(1, "+", 1))).text == "1+1="
    model.gate.set()
    await asyncio.gather(first, *waiting)
    assert not batcher.is_overloaded
    assert not any(Equation(99, "/", 1) in call for call in model.calls)


async def test_cancelled_batches_do_not_hold_up_those_behind_them():
    model = Model(slow="/")
    batcher = make_batcher(model, max_batch_size=2)
    first = batcher.submit(Equation(1, "/", 1))
    await model.called()
    cancelled = [batcher.submit(equation) for equation in many(4, "/", 2)]
    last = batcher.submit(Equation(9, "/", 9))
    for future in cancelled:
        future.cancel()
    model.gate.set()
    assert (await first).text == "1/1="
    assert (await asyncio.wait_for(last, 5)).text == "9/9="


async def test_equations_that_could_not_be_answered_in_time_are_rejected_at_once():
    model = Model(slow="/")
    batcher = make_batcher(model, max_batch_size=2, deadline_seconds=1.0)
    batcher.get_queue(Equation(1, "/", 1)).seconds_each = 0.2
    in_thread = batcher.submit(Equation(1, "/", 1))
    await model.called()
    waiting = [batcher.submit(equation) for equation in many(3, "/", 2)]
    with pytest.raises(OverloadedError):
        batcher.submit(Equation(9, "/", 9))
    assert (await batcher.submit(Equation(9, "+", 9))).text == "9+9="
    model.gate.set()
    await asyncio.gather(in_thread, *waiting)


async def test_past_the_deadline_a_request_fails_and_is_not_computed():
    model = Model(slow="/")
    batcher = make_batcher(model, deadline_seconds=0.5, max_batch_size=1)
    running = batcher.submit(Equation(0, "/", 1))
    await model.called()
    waiting = batcher.submit(Equation(1, "/", 1))
    for future in (running, waiting):
        with pytest.raises(DeadlineExceededError):
            await future
    model.gate.set()
    await asyncio.sleep(0.2)
    assert (await batcher.submit(Equation(2, "/", 1))).text == "2/1="
    assert [str(call[0]) for call in model.calls] == ["0/1=", "2/1="]


@pytest.mark.parametrize("operation", ["+", "/"])
async def test_of_a_failing_batch_only_the_failing_items_fail(operation):
    def model(equations: Sequence[Equation]) -> list[Answer]:
        if any(equation.operand_1 % 10 == 3 for equation in equations):
            raise RuntimeError("three")
        return [answer(equation) for equation in equations]

    seen: list[tuple] = []
    batcher = make_batcher(model, lambda *batch: seen.append(batch))
    futures = [batcher.submit(equation) for equation in many(64, operation, 0)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    await asyncio.sleep(0)
    failed = [n for n, result in enumerate(results) if isinstance(result, ModelFailedError)]
    assert failed == [3, 13, 23, 33, 43, 53, 63]
    assert sum(isinstance(result, Answer) for result in results) == 57
    ((equations, outcomes),) = seen
    pairs = zip(equations, outcomes, strict=True)
    assert [e.operand_1 for e, outcome in pairs if type(outcome) is not Answer] == failed


async def test_a_model_that_answers_too_few_fails_instead_of_mixing_answers_up():
    batcher = make_batcher(lambda equations: [answer(equations[0])])
    results = await asyncio.gather(*map(batcher.submit, many(3, "+", 0)))
    assert [result.text for result in results] == ["0+0=", "1+0=", "2+0="]


async def test_a_bug_in_the_callback_harms_no_request():
    def on_batch(*_):
        raise RuntimeError("a bug in checking")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    batcher = make_batcher(Model(), on_batch=on_batch)
    for equation in many(3, "+", 9):
        assert await batcher.submit(equation) == answer(equation)
        await asyncio.sleep(0)


def test_a_format_alone_is_computed_on_the_event_loop():
    batcher = Batcher(
        Model(), Grammar(("/",), 999), Settings(), Metrics(), on_batch=lambda *_: None
    )
    assert batcher.get_queue(Equation(1, "/", 1)).thread is None
    assert make_batcher(Model()).get_queue(Equation(1, "/", 1)).thread is not None
