"""Define the service's errors and answer every one of them in JSON.

    ServiceError                  status, outcome (the label in /metrics and the log), headers
    ├── ModelUnavailableError     503  no model is loaded
    ├── OverloadedError           503  the queue is full
    ├── DeadlineExceededError     504  no answer in time
    ├── ModelFailedError          500  the model raised on this equation
    ├── UnauthorizedError         401  no valid API key
    ├── BodyTooLargeError         413
    ├── MediaTypeError            415  the body is not sent as JSON
    └── ClientDisconnectedError   nobody reads the answer

`InvalidInputError` is a 422 in FastAPI's form: `{"detail": [{"type", "loc", "msg", "input"}]}`.
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from arithmetic.errors import InvalidEquationError, UserError

MAX_REPORTED_ERRORS = 1024  # a body of a megabyte can hold 100,000


class ServiceError(Exception):
    """Carry the HTTP status and headers of a failed request."""

    status: ClassVar[int]
    outcome: ClassVar[str] = "rejected"
    headers: ClassVar[dict[str, str]] = {}


class ModelUnavailableError(ServiceError):
    """Report that no model is loaded."""

    status, outcome, headers = 503, "unavailable", {"Retry-After": "2"}


class OverloadedError(ServiceError):
    """Reject a request at once, before the wait grows."""

    status, outcome, headers = 503, "overloaded", {"Retry-After": "1"}


class DeadlineExceededError(ServiceError):
    """Report that the deadline passed before there was an answer."""

    status, outcome = 504, "deadline_exceeded"


class ModelFailedError(ServiceError):
    """Report that the model raised on this equation; other equations have their answers."""

    status, outcome = 500, "failed"


class UnauthorizedError(ServiceError):
    """Reject a request without a valid API key."""

    status, outcome, headers = 401, "unauthorized", {"WWW-Authenticate": "Bearer"}


class BodyTooLargeError(ServiceError):
    """Reject a body above MAX_BODY_BYTES."""

    status = 413


class MediaTypeError(ServiceError):
    """Reject a body that is not sent as JSON."""

    status = 415


class ClientDisconnectedError(ServiceError):
    """Stop working on a request whose client has closed the connection."""

    status, outcome = 499, "disconnected"


class InvalidInputError(ServiceError):
    """Reject a body that is not what the route reads, with one entry for each error."""

    status = 422

    def __init__(self, errors: Sequence[dict[str, Any]]):
        super().__init__("; ".join(f"{_path(error['loc'])}{error['msg']}" for error in errors))
        self.errors = errors

    @classmethod
    def from_pydantic(cls, error: ValidationError) -> "InvalidInputError":
        """Convert the errors of a body."""
        kept = error.errors(include_url=False, include_context=False)[:MAX_REPORTED_ERRORS]
        return cls([{**entry, "loc": ("body", *entry["loc"])} for entry in kept])

    @classmethod
    def from_equations(
        cls, errors: Sequence[tuple[tuple[str | int, ...], str, InvalidEquationError]]
    ) -> "InvalidInputError":
        """Convert the grammar's errors; each with its place in the body and its text."""
        return cls(
            [
                {"type": error.code, "loc": ("body", *place), "msg": describe(error), "input": text}
                for place, text, error in errors
            ]
        )


def describe(error: UserError) -> str:
    """Return message and hint as one text."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _path(place: Sequence[str | int]) -> str:
    inner = ".".join(str(part) for part in place[1:])
    return f"{inner}: " if inner else ""


def json_safe(error: dict[str, Any]) -> dict[str, Any]:
    """Return one validation error; input that JSON cannot hold is shown as Python shows it."""
    kept: dict[str, Any] = {k: error[k] for k in ("type", "loc", "msg", "input") if k in error}
    try:
        json.dumps(kept, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):  # NaN, lone surrogates, deep nesting
        kept["input"] = ascii(kept["input"])[:200]
        kept["msg"] = kept["msg"].encode("ascii", "backslashreplace").decode()
    return kept


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    request.state.outcome = error.outcome
    detail: Any = str(error)
    if isinstance(error, InvalidInputError):
        detail = [json_safe(entry) for entry in error.errors]
    return JSONResponse({"detail": detail}, error.status, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """Answer like a ServiceError where a user's own FastAPI route rejects its input."""
    assert isinstance(error, RequestValidationError)
    detail = [json_safe(entry) for entry in error.errors()[:MAX_REPORTED_ERRORS]]
    return JSONResponse({"detail": detail}, 422)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    """Answer a bug; Starlette raises it again afterwards, and uvicorn logs the traceback."""
    headers = {"X-Request-ID": getattr(request.state, "request_id", "")}
    return JSONResponse({"detail": "internal server error"}, 500, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Install the handlers."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
