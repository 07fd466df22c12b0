"""Build the application: routes, error handlers, middleware.

`/docs` needs no other host: fastapi-offline brings Swagger UI's files.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from registry import download
from serving import explanation, predict, protocols
from serving.auth import load_keys
from serving.error_handlers import HANDLERS
from serving.explanation import ExplainThread
from serving.metrics import Metrics
from serving.model_manager import ModelManager
from serving.predict import PredictRoute
from serving.request_log import RequestMiddleware
from serving.schemas import Health, Readiness
from serving.settings import Settings

DESCRIPTION = """A small Transformer answers integer arithmetic, character by character.

`/health` names the registered version that answers."""
# How long startup waits for the first look at the registry before it listens without a model.
FIRST_ATTEMPT_SECONDS = 5.0

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def playground() -> Response:
    """Return the page on which the model can be tried."""
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Report that the process answers; a restart would not bring a model."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Report whether to send requests here: not while loading, overloaded or shutting down."""
    reason = request.app.state.manager.unready_reason()
    if reason is not None:
        response.status_code = 503
    return Readiness(ready=reason is None, reason=reason)


@router.get("/health", responses={503: {"model": Health}})
async def health(request: Request, response: Response) -> Health:
    """Report what is served; 503 while no model is loaded."""
    manager: ModelManager = request.app.state.manager
    model = manager.model
    general: dict[str, Any] = {
        "model_loaded": model is not None,
        "model_uri": request.app.state.settings.model_uri,
        "registry": manager.registry_status,
        "compare_url": request.app.state.settings.compare_url or None,
        "reason": manager.reason,
        "rejected": manager.rejected(),
    }
    if model is None:
        response.status_code = 503
        return Health(status="unavailable" if manager.reason else "loading", **general)
    return Health(
        status="ok",
        **general,
        model_name=model.version.name,
        model_version=model.version.version,
        model_digest=model.version.digest,
        operations=list(model.grammar.operations),
        max_operand=model.grammar.max_operand,
        source=manager.source,
        accuracy=model.stats.report(),
        drift=model.stats.drift.psi or None,
    )


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return all metrics in Prometheus' text format."""
    content = generate_latest(request.app.state.metrics.registry)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Follow the registry for as long as the application runs."""
    await app.state.manager.start(FIRST_ATTEMPT_SECONDS)
    yield
    app.state.manager.stop()


def create_app(settings: Settings, registry: Any = download) -> FastAPI:
    """Return the application; it begins to follow the registry when it starts.

    Args:
        registry: tests replace the module by their own `resolve`, `download` and `verify`.
    """
    keys = load_keys(settings)
    metrics = Metrics()
    manager = ModelManager(settings, metrics, registry)
    app = FastAPIOffline(
        redoc_url=None,
        title="arithmetic-lm",
        description=DESCRIPTION,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
        routes=[PredictRoute(manager)],  # the first, so that it is matched first
        swagger_ui_parameters={"validatorUrl": None},  # else a badge by validator.swagger.io
    )
    app.state.settings, app.state.metrics, app.state.manager = settings, metrics, manager
    app.state.explain_thread = ExplainThread(settings.deadline_seconds)
    app.state.compare_thread = ExplainThread(settings.deadline_seconds)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for part in (router, predict.router, explanation.router, protocols.router):
        app.include_router(part)
    app.add_middleware(RequestMiddleware, manager=manager, keys=keys, metrics=metrics)
    if settings.cors_origin_list:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin_list,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return app
