"""What happens to every request before and after its route: identity, admission, the count.

A plain ASGI function in front of FastAPI: a middleware inside it costs as much as the model.
"""

import itertools
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect

from serving.auth import Keys
from serving.limits import RateLimit, bucket_of
from serving.metrics import Metrics
from serving.problems import ServingProblem
from serving.request_log import RequestLog

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

JSON = (b"content-type", b"application/json")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

# Asked by whatever runs the service, which has no key: each path with all below it.
OPEN_PATHS = ("/livez", "/readyz", "/health", "/ping", "/v2/health")


class NotAllowed(ServingProblem):
    """No key, or a wrong one."""

    status, outcome, reason = 401, "unauthorized", "unauthorized"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class TooMany(ServingProblem):
    """Over the rate limit."""

    status, outcome, reason = 429, "rate_limited", "rate_limited"

    def __init__(self, seconds: float):
        super().__init__(f"too many requests; come back in {seconds:.3g} s")
        self.headers = {"Retry-After": str(max(1, round(seconds + 0.5)))}  # type: ignore[misc]


class Admission:
    """Who may ask, and how often."""

    def __init__(self, keys: Keys | None, limit: RateLimit | None):
        self._keys = keys
        self._limit = limit
        self.open = keys is None and limit is None

    def admit(self, scope: Scope) -> None:
        """Raises NotAllowed or TooMany; notes in the scope's state who asks."""
        path = scope["path"]
        if any(path == known or path.startswith(known + "/") for known in OPEN_PATHS):
            return
        client = scope.get("client")
        who = bucket_of(client[0]) if client else "local"
        if self._keys is not None:
            name = self._keys.name_of(scope["headers"])
            if name is None:
                raise NotAllowed("an API key is needed, as `Authorization: Bearer` or `X-API-Key`")
            who = f"key {name}"
        scope.setdefault("state", {})["who"] = who
        self._charge(scope, 1, 0)

    def charge(self, scope: Scope, count: int) -> None:
        """Count `count` equations more for who was admitted with one; raises TooMany."""
        self._charge(scope, count, 1)

    def _charge(self, scope: Scope, count: int, before: int) -> None:
        who = scope.get("state", {}).get("who")
        if self._limit is not None and who is not None and count > 0:
            wait = self._limit.take(who, count, before)
            if wait:
                raise TooMany(wait)


class Front:
    """In front of everything: names, admits and counts requests, and hands them to FastAPI."""

    def __init__(self, metrics: Metrics, admission: Admission, request_log: RequestLog):
        self._metrics = metrics
        self._admission = admission
        self._log = request_log
        # Requests are named by a random start and a number: 0.2 µs, a UUID takes 7.
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._counters: dict[tuple[str, str], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def request_id(self, scope: Scope) -> bytes:
        """The client's X-Request-ID if it is a sensible one, else a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return value
        return f"{self._prefix}-{next(self._numbers):x}".encode()

    async def admitted(self, scope: Scope, send: Send, request_id: bytes) -> bool:
        """Whether the request may go on; if not, it has been answered."""
        if self._admission.open:
            return True
        started = time.perf_counter()
        try:
            self._admission.admit(scope)
        except ServingProblem as problem:
            self._metrics.refuse(problem)
            await respond_problem(send, problem, request_id)
            self.finish(scope, "any", problem.status, problem.outcome, started, request_id, None)
            return False
        return True

    def finish(
        self,
        scope: Scope,
        route: str,
        status: int,
        outcome: str,
        started: float,
        request_id: bytes,
        version: str | None,
    ) -> None:
        """Count a request that has been answered, and log it if it is drawn."""
        seconds = time.perf_counter() - started
        counter = self._counters.get((route, outcome))
        if counter is None:
            counter = self._metrics.requests.labels(route, outcome)
            self._counters[route, outcome] = counter
        counter.inc()
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = self._metrics.seconds.labels(route)
        histogram.observe(seconds)
        if self._log.wants(status):
            self._log.write(
                request_id=request_id.decode(),
                method=scope["method"],
                route=route,
                status=status,
                outcome=outcome,
                milliseconds=round(seconds * 1e3, 3),
                version=version,
                who=scope.get("state", {}).get("who"),
            )

    async def through(
        self, framework: Application, scope: Scope, receive: Receive, send: Send, request_id: bytes
    ) -> None:
        """A request by FastAPI, counted."""
        started = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        status = 0

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":  # in the middle of its body
                state["outcome"] = "gone"
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await framework(scope, receiving, sending)
        except ClientDisconnect:
            pass  # nobody is there to be told
        finally:
            # The path as it was declared: what clients type would be labels without end.
            route = getattr(scope.get("route"), "path", "other")
            outcome = state.get("outcome") or outcome_of(status)
            self.finish(scope, route, status, outcome, started, request_id, state.get("version"))


def outcome_of(status: int) -> str:
    """The outcome of a request by its status, where nobody knows better."""
    if status == 0:
        return "gone"  # the client left before there was an answer
    if status < 400:
        return "answered"
    return "refused" if status < 500 else "failed"


async def respond(
    send: Send, status: int, body: bytes, request_id: bytes, headers: Headers = ()
) -> None:
    """A whole JSON response."""
    head = [JSON, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def respond_problem(send: Send, problem: ServingProblem, request_id: bytes) -> None:
    """A problem as FastAPI's exception handler says it."""
    body = json.dumps({"detail": str(problem)}, ensure_ascii=False, separators=(",", ":")).encode()
    headers = tuple((k.lower().encode(), v.encode()) for k, v in problem.headers.items())
    await respond(send, problem.status, body, request_id, headers)
