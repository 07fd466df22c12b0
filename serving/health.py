"""What the service says of itself: /livez, /readyz, /health, /metrics."""

from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Request, Response

from serving.metrics import CONTENT_TYPE
from serving.schemas import Health, Readiness

if TYPE_CHECKING:
    from serving.app import Service

router = APIRouter()


def service(request: Request) -> "Service":
    return cast("Service", request.app)


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers. Nothing else is looked at: no restart would bring a model."""
    return {"status": "ok"}


def unready(app: "Service") -> str | None:
    """Why no requests should come now; None if they may."""
    served = app.live.served
    if app.server_state.draining:
        return "ending"
    if served is None:
        return app.live.reason or "loading"
    return "overloaded" if served.batcher.overloaded() else None


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Whether to send requests here: not while loading, overloaded or ending."""
    reason = unready(service(request))
    if reason is not None:
        response.status_code = 503
    return Readiness(ready=reason is None, reason=reason)


@router.get("/health", responses={503: {"model": Health}})
async def health(request: Request, response: Response) -> Health:
    """What is served. 503 while no model is loaded."""
    live = service(request).live
    served = live.served
    if served is None:
        response.status_code = 503
        return Health(
            status="unavailable" if live.reason else "loading",
            model_loaded=False,
            model_uri=live.settings.model_uri,
            registry=live.watch.registry_state(),
            reason=live.reason,
            refused=live.watch.refusals(),
            candidate=live.candidate.report() if live.candidate else None,
        )
    return Health(
        status="ok",
        model_loaded=True,
        model_uri=live.settings.model_uri,
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


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(request: Request) -> Response:
    """Everything that is counted."""
    return Response(service(request).metrics.exposition(), media_type=CONTENT_TYPE)
