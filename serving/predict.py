"""Answer questions: POST /predict and POST /predict/batch.

`/predict` is a FastAPI route for the documentation alone: FastAPI's own machinery costs more than
the model, so an ASGI function answers. Errors are answered by `serving.error_handlers`.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from arithmetic.errors import InvalidEquationError
from arithmetic.explain import explain
from arithmetic.formats import Answer
from arithmetic.grammar import Equation
from serving.error_handlers import RESPONSES, ServiceError, describe
from serving.loaded_model import LoadedModel
from serving.model_manager import ModelManager
from serving.schemas import BatchRequest, BatchResponse, PredictRequest, PredictResponse

JSON_TYPE = b"application/json"
_JSON_TYPES = re.compile(rb"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)


async def predict(body: PredictRequest) -> None:
    """Answer one question."""


class PredictRoute(APIRoute):
    """Answer POST /predict, documented by the signature of `predict`."""

    def __init__(self, manager: ModelManager):
        super().__init__(
            "/predict",
            predict,
            methods=["POST"],
            response_model=PredictResponse,
            responses={status: r for status, r in RESPONSES.items() if status != 400},
        )
        self.app = self._answer
        self._manager = manager

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        started = time.perf_counter()
        request = await _parse_body(scope, receive)
        model = self._manager.get_model()
        equation = parse_equation(model, request.equation, "equation")
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


async def _parse_body(scope: Scope, receive: Receive) -> PredictRequest:
    """Return the validated body.

    Raises:
        HTTPException: it is not sent as JSON.
        RequestValidationError: it is not JSON, or not a PredictRequest.
    """
    check_content_type(scope)
    try:
        return PredictRequest.__pydantic_validator__.validate_json(await _read_body(receive))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        entries = [{**entry, "loc": ("body", *entry["loc"])} for entry in errors]
        raise RequestValidationError(entries) from error


async def _read_body(receive: Receive) -> bytearray:
    """Return the whole body; raise HTTPException if the client closed the connection."""
    body, has_more = bytearray(), True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(499, "the client closed the connection")
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
    return body


def check_content_type(scope: Scope) -> None:
    """Raise HTTPException unless the body is sent as JSON."""
    content_type = dict(scope["headers"]).get(b"content-type", b"nothing")
    if content_type != JSON_TYPE and not _JSON_TYPES.fullmatch(content_type):
        shown = content_type.decode("latin-1")[:100]
        raise HTTPException(415, f"send Content-Type: application/json; this body has {shown}")


# The other routes are FastAPI's.


async def require_json(request: Request) -> None:
    """Check the content type before FastAPI reports the body."""
    check_content_type(request.scope)


async def get_model(request: Request) -> LoadedModel:
    """Return the model that answers; raise ModelUnavailableError."""
    model: LoadedModel = request.app.state.manager.get_model()
    request.state.version = model.version.version
    return model


Model = Annotated[LoadedModel, Depends(get_model)]
router = APIRouter(dependencies=[Depends(require_json)], responses=RESPONSES)


@router.post("/predict/batch")
async def predict_batch(body: BatchRequest, model: Model) -> BatchResponse:
    """Answer up to 1,024 questions by one version, all or none."""
    started = time.perf_counter()
    answers = await predict_many(model, body.equations, "equations")
    return BatchResponse(
        predicted_answers=[answer.text for answer in answers],
        latency_ms=elapsed_ms(started),
        model_version=model.version.version,
    )


async def predict_many(model: LoadedModel, texts: Sequence[str], *place: str) -> list[Answer]:
    """Answer equations, all or none.

    Args:
        place: of the texts in the request's body, for errors.

    Raises:
        RequestValidationError: names each text that the grammar rejects by its index.
        ServiceError: overloaded, too late, or the model failed on one of them.
    """
    equations: list[Equation] = []
    errors: list[Any] = []
    for index, text in enumerate(texts):
        try:
            equations.append(parse_equation(model, text, *place, index))
        except RequestValidationError as error:
            errors += error.errors()
    if errors:
        raise RequestValidationError(errors)
    futures = model.batcher.submit_many(equations)
    try:
        return await asyncio.gather(*futures)
    except (ServiceError, asyncio.CancelledError):
        for future in futures:  # nobody waits for the others any more
            future.cancel()
        raise


def parse_equation(model: LoadedModel, text: str, *place: str | int) -> Equation:
    """Return the equation at a place in the body; raise RequestValidationError."""
    try:
        return model.grammar.parse(text)
    except InvalidEquationError as error:
        entry = {"type": error.code, "loc": ("body", *place), "msg": describe(error), "input": text}
        raise RequestValidationError([entry]) from error


def elapsed_ms(started: float) -> float:
    """Return the milliseconds since `started`, a `time.perf_counter()`."""
    return round((time.perf_counter() - started) * 1e3, 3)
