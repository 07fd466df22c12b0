"""POST /predict for the requests that are as they should be, as a plain ASGI function.

FastAPI's own way to a handler costs 164 µs a request, more than the model (facts.md, measured). So
the good requests, all but a few, are answered here; everything else (another media type, a body
that does not validate, an equation that the grammar refuses) is handed on, body and all, to the
FastAPI route of the same name, which says 422 as FastAPI says it. tests/test_serving_fast.py sends
the same bodies both ways and compares.
"""

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic import ValidationError

from arithmetic.errors import InvalidEquation
from arithmetic.steps import explain
from serving.live import Live
from serving.predict import serving
from serving.problems import ServingProblem
from serving.schemas import Question

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_validate = Question.__pydantic_validator__.validate_json
_JSON = (b"content-type", b"application/json")


class FastPredict:
    """The route; `otherwise` is the application that takes what it does not answer."""

    def __init__(self, live: Live, otherwise: ASGI):
        self._live = live
        self._otherwise = otherwise

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        started = time.perf_counter()
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body", False):
            message = await receive()
            body += message.get("body", b"")
        if message["type"] != "http.request":
            return None  # the client has gone
        if _JSON not in scope["headers"]:
            return await self._hand_on(scope, body, receive, send)
        try:
            question = _validate(body)
            served = serving(self._live)
            equation = served.grammar.parse(question.equation)
        except (ValidationError, InvalidEquation):
            return await self._hand_on(scope, body, receive, send)
        except ServingProblem as problem:
            return await respond_problem(send, problem)
        try:
            answer = await served.batcher.submit(equation, question.beam_width)
        except ServingProblem as problem:
            return await respond_problem(send, problem)
        milliseconds = (time.perf_counter() - started) * 1e3
        work = ""
        if question.show_work:
            steps = explain(equation, answer.scratch, served.grammar.digits)
            work = f',"work":{json.dumps(steps, ensure_ascii=False, separators=(",", ":"))}'
        # Question and answer are made of the tokenizer's characters: nothing to escape in JSON.
        text = question.equation
        await respond(
            send,
            200,
            (
                f'{{"equation":"{text}","predicted_answer":"{answer.text}",'
                f'"full_output":"{text}{answer.text}","latency_ms":{milliseconds:.3f},'
                f'"model_version":"{served.version}"{work}}}'
            ).encode(),
        )

    async def _hand_on(
        self, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send
    ) -> None:
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._otherwise(scope, again, send)


async def respond(
    send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """A whole JSON response."""
    head = [_JSON, (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def respond_problem(send: Send, problem: ServingProblem) -> None:
    """A problem as FastAPI's exception handler says it."""
    body = json.dumps({"detail": str(problem)}, ensure_ascii=False, separators=(",", ":")).encode()
    headers = tuple((k.lower().encode(), v.encode()) for k, v in problem.headers.items())
    await respond(send, problem.status, body, headers)
