"""The service in its neighbours' languages, so that their clients need not change.

MLflow's scoring protocol (`scoring`) and the Open Inference Protocol, version 2 over HTTP
(`inference`). Both answer through `serving.predict`, as POST /predict does, and tell failures in
their own protocol's form.
"""

from fastapi import APIRouter

from serving.live import Live
from serving.protocols import inference, scoring


def router(live: Live) -> APIRouter:
    """All routes of both protocols, for `app.include_router`."""
    both = APIRouter()
    both.include_router(scoring.router(live))
    both.include_router(inference.router(live))
    return both
