"""Identify, admit, count and log each request, in one ASGI middleware for all routes.

Log records are JSON objects (LOG_FORMAT=json) or text, with timestamps, on stderr. One request in
a hundred is logged, since writing a line costs a third of a request; server errors always are.
"""

import functools
import itertools
import logging
import random
import re
import secrets
import sys
import time
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.auth import Digests, find_name
from serving.error_handlers import UnauthorizedError
from serving.metrics import Metrics
from serving.model_manager import ModelManager

log = logging.getLogger("serving.requests")

# Probes and the page's files need no key; each path with all below it.
OPEN_PATHS = ("/livez", "/readyz", "/health", "/ping", "/v2/health", "/", "/static")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def setup_logging(log_format: str) -> None:
    """Send all logs to stderr, in one format."""
    formatter: logging.Formatter
    if log_format == "json":
        names = {"levelname": "level", "name": "logger"}
        formatter = JsonFormatter(
            "{levelname}{name}{message}", style="{", timestamp="time", rename_fields=names
        )
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class RequestMiddleware:
    """Give each request an id, check its key and size, count it and log a sample.

    Middleware that is added to the application later runs around it, so that CORS, tracing or
    compression apply to all routes.
    """

    def __init__(self, app: ASGIApp, manager: ModelManager, keys: Digests, metrics: Metrics):
        self._app, self._manager, self._keys = app, manager, keys
        self._sample, self._max_body = manager.settings.log_sample, manager.settings.max_body_bytes
        # A random start and a number take 0.2 µs, a UUID 7.
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        # The look-up of a metric's child costs more than the counting.
        self._requests = functools.cache(metrics.requests.labels)
        self._seconds = functools.cache(metrics.request_seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._prefix}-{next(self._numbers):x}".encode()
        state["request_id"], state["method"] = request_id.decode(), scope["method"]
        if scope["method"] == "HEAD":  # every GET route answers it; the server drops the body
            scope = {**scope, "method": "GET"}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = [*message.get("headers", ()), (b"x-request-id", request_id)]
                if self._manager.is_draining:
                    sent.append((b"connection", b"close"))
                message["headers"] = sent
            await send(message)

        try:
            await self._app(scope, self._admit(scope, headers, receive), send_with_id)
        except HTTPException as error:  # from _admit: the application answers its own
            state["outcome"] = getattr(error, "outcome", None)
            response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            await response(scope, receive, send_with_id)
        except Exception:
            status = 500  # ServerErrorMiddleware answers
            raise
        finally:
            self._finish(scope, status, started)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Return `receive` with a body limit; raise HTTPException."""
        if self._keys and not self._is_open(scope):
            name = find_name(self._keys, headers)
            if name is None:
                raise UnauthorizedError("send an API key as `Authorization: Bearer` or `X-API-Key`")
            scope["state"]["api_key"] = name
        if b"content-length" in headers:
            if int(headers[b"content-length"]) > self._max_body:
                raise self._too_large()
            return receive  # the server reads no more than that
        total = 0

        async def receive_limited() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_body:
                raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._max_body} bytes")

    @staticmethod
    def _is_open(scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return any(path == known or path.startswith(known + "/") for known in OPEN_PATHS)

    def _finish(self, scope: Scope, status: int, started: float) -> None:
        """Count a request, and log it if it is sampled or failed."""
        seconds = time.perf_counter() - started
        state = scope["state"]
        # The declared path: what clients type would make labels without end.
        route = getattr(scope.get("route"), "path", "other")
        outcome = state.get("outcome") or _outcome(status)
        self._requests(route, outcome).inc()
        self._seconds(route).observe(seconds)
        if status >= 500 or random.random() < self._sample:
            fields = {
                "request_id": state["request_id"],
                "method": state["method"],
                "route": route,
                "status": status,
                "outcome": outcome,
                "milliseconds": round(seconds * 1e3, 3),
                "model_version": state.get("version"),
                "api_key": state.get("api_key"),
            }
            line = "%(method)s %(route)s %(status)d %(milliseconds)g ms %(request_id)s"
            log.info(line, fields, extra=fields)


def _outcome(status: int) -> str:
    """Return the outcome where no handler has set it."""
    if status in (0, 499):
        return "disconnected"
    if status < 400:
        return "answered"
    return "rejected" if status < 500 else "failed"
