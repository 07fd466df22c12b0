"""Answer questions: POST /predict and POST /predict/batch.

`/predict` is an ASGI endpoint without Starlette's `Request` around it: FastAPI's own machinery
costs more than the model. It raises ServiceError, and the handlers of `serving.error_handlers`
answer.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arithmetic.errors import InvalidEquationError
from arithmetic.explain import explain
from arithmetic.formats import Answer
from arithmetic.grammar import Equation
from serving.error_handlers import (
    ClientDisconnectedError,
    InvalidInputError,
    MediaTypeError,
    ServiceError,
)
from serving.loaded_model import LoadedModel
from serving.model_manager import ModelManager
from serving.schemas import BatchRequest, PredictRequest

JSON_TYPE = b"application/json"
_JSON_TYPES = re.compile(rb"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Prediction:
    """Hold the model's answer to an equation."""

    equation: Equation
    answer: Answer


class PredictEndpoint:
    """Answer one question."""

    def __init__(self, manager: ModelManager):
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        started = time.perf_counter()
        request = await parse_body(PredictRequest, scope, receive)
        model = self._manager.get_model()
        equation = parse_equation(model, request.equation)
        scope["state"]["version"] = model.version.version
        answer = await model.batcher.submit(equation)
        content = {
            "equation": request.equation,
            "predicted_answer": answer.text,
            "full_output": request.equation + answer.text,
            "latency_ms": elapsed_ms(started),
            "model_version": model.version.version,
        }
        if request.steps:
            content["steps"] = explain(equation, answer.scratchpad, model.grammar.digits)
        body = to_json(content)
        headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def predict_batch(request: Request) -> Response:
    """Answer up to 1,024 questions by one version, all or none."""
    started = time.perf_counter()
    body = await parse_body(BatchRequest, request.scope, request.receive)
    model = request.app.state.manager.get_model()
    predictions = await predict_many(model, body.equations, ("equations",))
    request.state.version = model.version.version
    content = {
        "predicted_answers": [prediction.answer.text for prediction in predictions],
        "latency_ms": elapsed_ms(started),
        "model_version": model.version.version,
    }
    return Response(to_json(content), media_type="application/json")


async def predict_many(
    model: LoadedModel, texts: Sequence[str], place: tuple[str, ...] = ()
) -> list[Prediction]:
    """Answer equations behind the single ones.

    Args:
        place: of the texts in the request's body, for errors.

    Raises:
        InvalidInputError: names each text that the grammar rejects by its index.
        ServiceError: overloaded, too late, or the model failed on one of them.
    """
    equations: list[Equation] = []
    errors: list[tuple[tuple[str | int, ...], str, InvalidEquationError]] = []
    for index, text in enumerate(texts):
        try:
            equations.append(model.grammar.parse(text))
        except InvalidEquationError as error:
            errors.append(((*place, index), text, error))
    if errors:
        raise InvalidInputError.from_equations(errors)
    futures = model.batcher.submit_many(equations)
    try:
        answers = await asyncio.gather(*futures)
    except (ServiceError, asyncio.CancelledError):
        for future in futures:  # nobody waits for the others any more
            future.cancel()
        raise
    return [Prediction(*pair) for pair in zip(equations, answers, strict=True)]


def parse_equation(model: LoadedModel, text: str) -> Equation:
    """Return the body's `equation`; raise InvalidInputError if the grammar rejects it."""
    try:
        return model.grammar.parse(text)
    except InvalidEquationError as error:
        raise InvalidInputError.from_equations([(("equation",), text, error)]) from error


async def parse_body(schema: type[Model], scope: Scope, receive: Receive) -> Model:
    """Return the validated body.

    Raises:
        MediaTypeError: it is not sent as JSON.
        InvalidInputError: it is not JSON, or not of this schema.
    """
    _check_content_type(scope)
    try:
        return schema.__pydantic_validator__.validate_json(await read_body(receive))
    except ValidationError as error:
        raise InvalidInputError.from_pydantic(error) from error


async def read_body(receive: Receive) -> bytes:
    """Return the whole body; raise ClientDisconnectedError."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
        body = b"".join(parts)
    if message["type"] != "http.request":
        raise ClientDisconnectedError("the client closed the connection")
    return body


def _check_content_type(scope: Scope) -> None:
    content_type = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value == JSON_TYPE:
                return
            content_type = value
    if not _JSON_TYPES.fullmatch(content_type):
        shown = content_type.decode("latin-1")[:100] or "nothing"
        raise MediaTypeError(
            f"the body must be sent with Content-Type: application/json; this one has {shown}"
        )


def elapsed_ms(started: float) -> float:
    """Return the milliseconds since `started`, a `time.perf_counter()`."""
    return round((time.perf_counter() - started) * 1e3, 3)
