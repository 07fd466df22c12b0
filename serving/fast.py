"""POST /predict for the requests that are as they should be, as a plain ASGI function.

FastAPI's own way to a handler costs more than the model (docs/benchmarks.md). So the
good requests, all but a few, are answered here; everything else (another media type, a body that
does not validate, an equation that the grammar refuses) is handed on, body and all, to the FastAPI
route of the same path, which says 422 as FastAPI says it. tests/test_serving_fast.py sends the same
bodies both ways and compares.
"""

import json
import time

from pydantic import ValidationError

from arithmetic.errors import InvalidEquation
from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from arithmetic.steps import explain
from serving.front import (
    JSON,
    Application,
    Front,
    Message,
    Receive,
    Scope,
    Send,
    respond,
    respond_problem,
)
from serving.live import Live, Served
from serving.predict import serving
from serving.problems import ServingProblem
from serving.schemas import Question

PATH = "/predict"

_validate = Question.__pydantic_validator__.validate_json


class FastPredict:
    """The route; `framework` takes what it does not answer."""

    def __init__(self, live: Live, front: Front, framework: Application):
        self._live = live
        self._front = front
        self._framework = framework

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        """Answer, or hand on."""
        started = time.perf_counter()
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body", False):
            pieces = [body]
            while message.get("more_body", False):
                message = await receive()
                pieces.append(message.get("body", b""))
            body = b"".join(pieces)
        if message["type"] != "http.request":
            self._front.finish(scope, PATH, 0, "gone", started, request_id, None)
            return
        version = None
        try:
            if JSON not in scope["headers"]:
                raise _HandOn
            question = _validate(body)
            served = serving(self._live)
            version = served.version
            equation = served.grammar.parse(question.equation)
            answer = await served.batcher.submit(equation, question.beam_width)
        except (ValidationError, InvalidEquation, _HandOn):
            await self._hand_on(scope, body, receive, send, request_id)
            return
        except ServingProblem as problem:
            status, outcome = problem.status, problem.outcome
            await respond_problem(send, problem, request_id)
        else:
            status, outcome = 200, "answered"
            written = write(question, equation, answer, served, time.perf_counter() - started)
            await respond(send, 200, written, request_id)
        self._front.finish(scope, PATH, status, outcome, started, request_id, version)

    async def _hand_on(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, request_id: bytes
    ) -> None:
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._front.through(self._framework, scope, again, send, request_id)


class _HandOn(Exception):
    """FastAPI knows what to say."""


def write(
    question: Question, equation: Equation, answer: Answer, served: Served, seconds: float
) -> bytes:
    """A `Prediction` as JSON, in 0.8 µs; by pydantic it takes 6.6.

    An equation that the grammar accepts and what a model can write are characters that JSON does
    not escape (a test goes through all of them).
    """
    work = ""
    if question.show_work:
        steps = explain(equation, answer.scratch, served.grammar.digits)
        work = f',"work":{json.dumps(steps, ensure_ascii=False, separators=(",", ":"))}'
    text, version = question.equation, json.dumps(served.version)
    return (
        f'{{"equation":"{text}","predicted_answer":"{answer.text}",'
        f'"full_output":"{text}{answer.text}","latency_ms":{seconds * 1e3:.3f},'
        f'"model_version":{version}{work}}}'
    ).encode()
