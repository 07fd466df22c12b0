"""Define the service's errors and answer every error in JSON, in the form of its route's protocol.

Other statuses (404, 413, 415) are Starlette's HTTPException, and a rejected body is FastAPI's
RequestValidationError: `{"detail": [{"type", "loc", "msg", "input"}]}` with status 422.
"""

import json
from typing import Any, ClassVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from arithmetic.errors import UserError
from serving.schemas import ErrorResponse

MAX_REPORTED_ERRORS = 1024  # a body of a megabyte can hold 100,000
ANSWER_DEPTH = 20  # more levels and calls than an answer adds to an error: each is recursion
MLFLOW_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# The statuses of the routes that answer questions, for the documentation.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "The body cannot be decoded.",
        401: "An API key is needed (where keys are configured).",
        413: "The body is too large.",
        415: "The body is not sent as application/json.",
        500: "The model failed on this equation, or the service has a bug.",
        503: "No model is loaded, or the queue is full; see Retry-After.",
        504: "No answer before the deadline.",
    }.items()
}


class ServiceError(HTTPException):
    """Fail a request; `outcome` is its label in /metrics and the log."""

    status: ClassVar[int]
    outcome: ClassVar[str]
    extra_headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str):
        super().__init__(self.status, detail, self.extra_headers)


class ModelUnavailableError(ServiceError):
    """Report that no model is loaded."""

    status, outcome, extra_headers = 503, "unavailable", {"Retry-After": "2"}


class OverloadedError(ServiceError):
    """Reject a request at once, before the wait grows."""

    status, outcome, extra_headers = 503, "overloaded", {"Retry-After": "1"}


class DeadlineExceededError(ServiceError):
    """Report that the deadline passed before there was an answer."""

    status, outcome = 504, "deadline_exceeded"


class ModelFailedError(ServiceError):
    """Report that the model raised on this equation; other equations have their answers."""

    status, outcome = 500, "failed"


class UnauthorizedError(ServiceError):
    """Reject a request without a valid API key."""

    status, outcome, extra_headers = 401, "unauthorized", {"WWW-Authenticate": "Bearer"}


def describe(error: Exception) -> str:
    """Return a user's error, message and hint, or another exception as one line."""
    if isinstance(error, UserError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return " ".join(repr(error).split())[:300]


def json_safe(error: dict[str, Any]) -> dict[str, Any]:
    """Return one validation error; input that JSON cannot hold is shown as Python shows it."""
    kept = {name: error[name] for name in ("type", "loc", "msg", "input")}
    nested: Any = kept
    for _ in range(ANSWER_DEPTH):
        nested = [nested]
    try:
        json.dumps(nested, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):  # NaN, lone surrogates, deep nesting
        kept["input"] = ascii(kept["input"])[:200]
    return kept


def route_path(request: Request) -> str:
    """Return the declared path of the request's route, empty where there is none."""
    return getattr(request.scope.get("route"), "path", "")


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    request.state.outcome = getattr(error, "outcome", None)
    path, detail = route_path(request), error.detail
    content = {"detail": detail}
    if path == "/invocations":
        code = MLFLOW_CODES.get(error.status_code, "BAD_REQUEST")
        content = {"error_code": code, "message": detail}
    elif path.startswith("/v2"):
        content = {"error": detail}
    return JSONResponse(content, error.status_code, error.headers)


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = [json_safe(entry) for entry in error.errors()[:MAX_REPORTED_ERRORS]]
    if route_path(request).startswith(("/invocations", "/v2")):
        texts = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in errors]
        return await _on_http_error(request, HTTPException(400, "; ".join(texts)))
    return JSONResponse({"detail": errors}, 422)


async def _on_bug(request: Request, error: Exception) -> Response:
    """Answer a bug; Starlette raises it again afterwards, and uvicorn logs the traceback."""
    headers = {"X-Request-ID": getattr(request.state, "request_id", "")}
    return JSONResponse({"detail": "internal server error"}, 500, headers)


HANDLERS: dict[Any, Any] = {
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_error,
    Exception: _on_bug,
}
