"""The HTTP face: POST /predict, GET /health, /docs."""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from arithmetic.errors import InvalidEquation
from arithmetic.steps import explain
from serving.fast import FastPredict
from serving.live import Live
from serving.metrics import CONTENT_TYPE, Metrics
from serving.predict import ask
from serving.problems import ServingProblem
from serving.schemas import Health, Prediction, Question, Unavailable
from serving.settings import Settings
from serving.watch import Registry

DESCRIPTION = """A tiny Transformer answers integer arithmetic, character by character.

The version behind the alias `Production` of an MLflow registry is served; `/health` says which."""


# How long starting waits for the registry before it listens without a model.
FIRST_ATTEMPT_SECONDS = 5.0


def create_app(settings: Settings, registry: Registry | None = None) -> FastAPI:
    """The application; following the registry begins when it starts.

    `registry` is asked instead of the MLflow server that the settings name.
    """
    metrics = Metrics()
    live = Live(settings, registry, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A moment's patience, so that a healthy service starts with its model loaded.
        await live.start(FIRST_ATTEMPT_SECONDS)
        yield
        live.stop()

    app = Service(title="arithmetic-lm", description=DESCRIPTION, lifespan=lifespan)

    @app.exception_handler(RequestValidationError)
    async def unprocessable(_: Request, error: RequestValidationError) -> JSONResponse:
        """FastAPI's own 422, but for input that JSON cannot hold (NaN, lone surrogates)."""
        return JSONResponse({"detail": [speakable(one) for one in error.errors()]}, 422)

    @app.exception_handler(ServingProblem)
    async def unavailable(_: Request, problem: ServingProblem) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, problem.status, problem.headers)

    @app.get("/metrics", response_class=Response)
    async def exposition() -> Response:
        """Prometheus' text format."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    @app.post("/predict", responses={503: {"model": Unavailable}}, response_model_exclude_none=True)
    async def predict(question: Question) -> Prediction:
        """Answer one equation. 422 says why an equation is refused."""
        started = time.perf_counter()
        try:
            asked = await ask(live, question.equation, question.beam_width)
        except InvalidEquation as problem:
            raise refused(question.equation, problem) from problem
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

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """What is served. 503 while no model is loaded."""
        served = live.served
        if served is None:
            response.status_code = 503
            return Health(
                status="unavailable" if live.reason else "loading",
                model_loaded=False,
                model_uri=settings.model_uri,
                registry=live.watch.registry_state(),
                reason=live.reason,
                refused=live.watch.refusals(),
            )
        return Health(
            status="ok",
            model_loaded=True,
            model_uri=settings.model_uri,
            model_name=served.name,
            model_version=served.version,
            bundle_sha256=served.bundle_sha256,
            operations=list(served.grammar.operations),
            max_operand=served.grammar.max_operand,
            source=live.watch.source,
            registry=live.watch.registry_state(),
            reason=live.reason,
            refused=live.watch.refusals(),
            accuracy=served.tally.report(),
            drift=live.drift.report(),
            candidate=live.candidate.report() if live.candidate else None,
        )

    app.fast = FastPredict(live, app.framework)
    return app


class Service(FastAPI):
    """FastAPI with a fast way in front of it."""

    fast: FastPredict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            await self.fast(scope, receive, send)
        else:
            await self.framework(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI alone."""
        await super().__call__(scope, receive, send)


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


def refused(text: str, problem: InvalidEquation) -> RequestValidationError:
    """The grammar's refusal in the form of FastAPI's own 422."""
    return RequestValidationError(
        [
            {
                "type": "invalid_equation",
                "loc": ("body", "equation"),
                "msg": str(problem),
                "input": text,
            }
        ]
    )
