"""What both protocols ask of the application: answers, charged and counted as for /predict."""

from typing import TYPE_CHECKING, cast

from fastapi import Request

from arithmetic.errors import InvalidEquation
from serving import health
from serving.live import Live, Served
from serving.predict import Asked, ask, ask_many
from serving.problems import ServingProblem
from serving.protocols.body import Refused

if TYPE_CHECKING:
    from serving.app import Service


def unready(request: Request) -> str | None:
    """Why no requests should come now, as /readyz says it; None if they may."""
    return health.unready(cast("Service", request.app))


def count(request: Request, problem: Refused) -> None:
    """Count a body that breaks its protocol among the refused inputs."""
    cast("Service", request.app).metrics.refused.labels(problem.reason).inc()


async def answered(
    request: Request, live: Live, texts: list[str], served: Served | None = None
) -> list[Asked]:
    """Answers by one version, by `served` where it is given.

    Raises:
        InvalidEquation: naming the index, where there are several.
        ServingProblem: the rate limit among them.
    """
    app, state = cast("Service", request.app), request.scope["state"]
    try:
        app.admission.charge(request.scope, len(texts) - 1)
        if len(texts) == 1:
            found = [await ask(live, texts[0], served=served)]
        else:
            found = await ask_many(live, texts, served=served)
    except InvalidEquation as problem:
        app.metrics.refused.labels(problem.reason).inc()
        raise
    except ServingProblem as problem:
        state["outcome"] = problem.outcome
        app.metrics.refuse(problem)
        raise
    if found:
        state["version"] = found[0].served.version
    return found
