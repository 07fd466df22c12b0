"""Show a second version beside the served one: POST /compare asks the service at COMPARE_URL."""

import http.client
import urllib.request
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.error_handlers import ModelUnavailableError
from serving.predict import parse_body
from serving.schemas import ExplainRequest
from serving.settings import Settings


async def compare(request: Request) -> Response:
    """Return POST /explain of the service at COMPARE_URL; 404 where none is set."""
    settings: Settings = request.app.state.settings
    if not settings.compare_url:
        raise HTTPException(404, "COMPARE_URL is not set")
    body = await parse_body(ExplainRequest, request.scope, request.receive)
    key = request.headers.get("x-api-key", "")
    call = partial(_ask, settings, body.model_dump_json().encode(), key)
    content = await request.app.state.compare_thread.run(call)
    return Response(content, media_type="application/json")


def _ask(settings: Settings, body: bytes, key: str) -> bytes:
    url = f"{settings.compare_url.rstrip('/')}/explain"
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    question = urllib.request.Request(url, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(question, timeout=settings.deadline_seconds) as file:
            return bytes(file.read())
    except (OSError, http.client.HTTPException) as error:
        raise ModelUnavailableError(f"{url}: {error}") from error
