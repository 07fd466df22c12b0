"""The HTTP face, put together: what is asked, by which way, and what is said of the service."""

import contextlib
import gc
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from arithmetic.errors import InvalidEquation
from arithmetic.steps import explain
from serving import health
from serving.auth import keys_from
from serving.fast import PATH, FastPredict
from serving.front import Admission, Front
from serving.limits import RateLimit
from serving.live import Live
from serving.metrics import Metrics
from serving.predict import InvalidEquations, ask, ask_many
from serving.problems import ServingProblem, WrongMediaType
from serving.protocols import router
from serving.request_log import RequestLog
from serving.schemas import Prediction, Predictions, Problems, Question, Questions
from serving.server import State
from serving.settings import Settings
from serving.watch import Registry

DESCRIPTION = """A tiny Transformer answers integer arithmetic, character by character.

The version behind the alias `Production` of an MLflow registry is served; `/health` says which."""


# Errors that a 422 lists, enough for a whole batch: a body of a megabyte can hold 100,000.
MOST_ERRORS = 1024
# How long starting waits for the registry before it listens without a model.
FIRST_ATTEMPT_SECONDS = 5.0


class Service(FastAPI):
    """FastAPI with the fast route in front of it, and what belongs to one application.

    Attributes:
        live: the version that is served.
        metrics: the counters.
        server_state: whether the service is ending.
        admission: who may ask, and how often.
    """

    live: Live
    metrics: Metrics
    server_state: State
    admission: Admission
    front: Front
    fast: FastPredict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request_id = self.front.request_id(scope)
        if not await self.front.admitted(scope, send, request_id):
            return
        if scope["path"] == PATH and scope["method"] == "POST":
            await self.fast(scope, receive, send, request_id)
        else:
            await self.front.through(super().__call__, scope, receive, send, request_id)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI alone, as the fast route hands on to it."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings, registry: Registry | None = None, rates: Path | None = None
) -> Service:
    """The application; following the registry begins when it starts.

    `registry` is asked instead of the MLflow server that the settings name; `rates` is the file in
    which several workers keep what they share of the rate limit.
    """
    keys = keys_from(settings)
    limit = None
    if settings.rate_limit:
        limit = RateLimit(settings.rate_limit, settings.rate_burst, rates)
    app = Service(title="arithmetic-lm", description=DESCRIPTION, lifespan=lifespan)
    app.metrics = Metrics()
    app.live = Live(settings, registry, app.metrics)
    app.server_state = State()
    app.admission = Admission(keys, limit)
    app.front = Front(app.metrics, app.admission, RequestLog(settings.log_sample))
    app.fast = FastPredict(app.live, app.front, app.framework)
    add_exception_handlers(app)
    add_predictions(app)
    app.include_router(health.router)
    app.include_router(router(app.live))
    return app


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Follow the registry for as long as the application runs."""
    assert isinstance(app, Service)
    # A moment's patience, so that a healthy service starts with its model loaded.
    await app.live.start(FIRST_ATTEMPT_SECONDS)
    # What is loaded now stays: without it, collections of the whole heap make much of p99.
    gc.collect()
    gc.freeze()
    yield
    app.live.stop()


def add_predictions(app: Service) -> None:
    """POST /predict and /predict/batch."""
    live = app.live

    @app.post(
        PATH,
        responses=Problems.responses,
        response_model_exclude_none=True,
        dependencies=[Depends(json_only)],
    )
    async def predict(question: Question, request: Request) -> Prediction:
        """Answer one equation. 422 says why an equation is refused."""
        started = time.perf_counter()
        try:
            asked = await ask(live, question.equation, question.beam_width)
        except InvalidEquation as problem:
            raise refused(question.equation, problem) from problem
        request.scope["state"]["version"] = asked.served.version
        answer = asked.answer
        return Prediction(
            equation=question.equation,
            predicted_answer=answer.text,
            full_output=question.equation + answer.text,
            latency_ms=round((time.perf_counter() - started) * 1e3, 3),
            model_version=asked.served.version,
            work=explain(asked.equation, answer.scratch, asked.served.grammar.digits)
            if question.show_work
            else None,
        )

    @app.post(f"{PATH}/batch", responses=Problems.responses, dependencies=[Depends(json_only)])
    async def predict_batch(questions: Questions, request: Request) -> Predictions:
        """Answer up to 1,024 equations by one version: all of them or, with the reason, none.

        422 names each equation that is refused by its index.
        """
        started = time.perf_counter()
        app.admission.charge(request.scope, len(questions.equations) - 1)
        try:
            asked = await ask_many(live, questions.equations, questions.beam_width)
        except InvalidEquations as problems:
            raise RequestValidationError(
                [
                    error_of(("body", "equations", index), questions.equations[index], problem)
                    for index, problem in problems.refusals
                ]
            ) from problems
        version = asked[0].served.version
        request.scope["state"]["version"] = version
        return Predictions(
            predicted_answers=[one.answer.text for one in asked],
            latency_ms=round((time.perf_counter() - started) * 1e3, 3),
            model_version=version,
        )


def json_only(request: Request) -> None:
    """FastAPI's 422 for another media type says that the body is no object, which misleads."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/(json|.+\+json)", media_type):
        raise WrongMediaType(
            f"the body must be JSON, sent with `Content-Type: application/json`; this request "
            f"says {media_type[:100] or 'nothing'!r}"
        )


def add_exception_handlers(app: Service) -> None:
    """Every error has a JSON body with `detail`, and an outcome for the count."""

    @app.exception_handler(RequestValidationError)
    async def unprocessable(request: Request, error: RequestValidationError) -> JSONResponse:
        """FastAPI's own 422, but for input that JSON cannot hold (NaN, lone surrogates)."""
        errors = error.errors()
        app.metrics.refused.labels(errors[0].get("reason") or errors[0]["type"]).inc()
        said = [speakable(one) for one in errors[:MOST_ERRORS]]
        if len(errors) > len(said):
            said.append({"type": "more", "loc": [], "msg": f"and {len(errors) - len(said)} more"})
        return JSONResponse({"detail": said}, 422)

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> Response:
        """FastAPI's own, counted where a body is no text that JSON could be in."""
        if error.status_code == 400:
            app.metrics.refused.labels("unreadable_body").inc()
        return await http_exception_handler(request, error)

    @app.exception_handler(ServingProblem)
    async def unavailable(request: Request, problem: ServingProblem) -> JSONResponse:
        request.scope["state"]["outcome"] = problem.outcome
        app.metrics.refuse(problem)
        return JSONResponse({"detail": str(problem)}, problem.status, problem.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        """Starlette logs it after this, with its traceback."""
        return JSONResponse({"detail": "Internal Server Error"}, 500)


def speakable(error: dict[str, Any]) -> dict[str, Any]:
    """One validation error; input that cannot be sent back as JSON is shown as Python shows it."""
    kept: dict[str, Any] = {
        key: error[key] for key in ("type", "loc", "msg", "input") if key in error
    }
    try:
        json.dumps(kept, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError):  # UnicodeEncodeError is a ValueError
        kept["input"] = ascii(kept["input"])[:200]
        kept["msg"] = kept["msg"].encode("ascii", "backslashreplace").decode()
    return kept


def error_of(where: tuple[str | int, ...], text: str, problem: InvalidEquation) -> dict[str, Any]:
    """The grammar's refusal as one error of FastAPI's own 422."""
    return {
        "type": "invalid_equation",
        "loc": where,
        "msg": str(problem),
        "input": text,
        "reason": problem.reason,  # for the count; `speakable` leaves it out
    }


def refused(text: str, problem: InvalidEquation) -> RequestValidationError:
    """The grammar's refusal of the one equation of a body."""
    return RequestValidationError([error_of(("body", "equation"), text, problem)])
