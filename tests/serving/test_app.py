"""The application as a whole: probes, documentation, middleware, errors."""

import re

import pytest
from fastapi import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings

PROBES = ["/", "/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json", "/ping"]


def test_probes_answer_get_and_head_alike_and_503_where_they_need_a_model(
    start_service, exact_model, tmp_path
):
    for uri, not_ready in ((exact_model, 200), (tmp_path / "missing", 503)):
        client = start_service(model_uri=str(uri))
        for path in PROBES:
            get, head = client.get(path), client.head(path)
            expected = not_ready if path in ("/readyz", "/health", "/ping") else 200
            assert get.status_code == head.status_code == expected
            assert get.content
            assert head.content == b""
            assert head.headers["content-type"] == get.headers["content-type"]


def test_health_names_version_digest_and_domain(client):
    health = client.get("/health").json()
    assert (health["status"], health["model_loaded"]) == ("ok", True)
    assert (health["model_name"], health["model_version"]) == ("exact", "local")
    assert re.fullmatch("[0-9a-f]{64}", health["model_digest"])
    assert (health["operations"], health["max_operand"]) == (["+", "-"], 99)
    assert (health["source"], health["registry"]) == ("directory", "not used")


def test_docs_load_nothing_from_another_host(client):
    page = client.get("/docs").text
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/")
        assert client.get(address).status_code == 200
    assert '"validatorUrl": null' in page


def test_a_bug_is_a_json_500_with_its_request_id_and_is_counted(client, monkeypatch):
    def bug(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr("serving.predict.explain", bug)
    body = {"equation": "1+1=", "steps": True}
    response = client.post("/predict", json=body, headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.json()) == (500, {"detail": "internal server error"})
    assert response.headers["X-Request-ID"] == "mine"
    counted = 'arithmetic_requests_total{outcome="failed",route="/predict"} 1.0'
    assert counted in client.get("/metrics").text


def test_middleware_and_routes_that_a_user_adds_work_as_the_services_own(exact_model):
    app = create_app(Settings(model_uri=str(exact_model)))

    @app.middleware("http")
    async def add_header(request: Request, call_next):
        response = await call_next(request)
        response.headers["X-Added"] = "yes"
        return response

    @app.get("/mine/{number}")
    async def mine(number: int) -> JSONResponse:
        return JSONResponse({"number": number})

    with TestClient(app) as client:
        response = client.post("/predict", json={"equation": "1+1="})
        assert (response.status_code, response.headers["X-Added"]) == (200, "yes")
        assert client.get("/mine/7").json() == {"number": 7}
        assert client.get("/mine/x").status_code == 422
        assert 'route="/mine/{number}"' in client.get("/metrics").text
        assert "/mine/{number}" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("origins", "origin", "preflight_status", "allowed"),
    [
        ("", "https://page.example", 405, None),  # the default
        ("https://page.example, https://b.example", "https://page.example", 200, "https://page.example"),
        ("https://page.example, https://b.example", "https://evil.example", 400, None),
    ],
)  # fmt: skip
def test_cors_allows_the_origins_of_the_setting(
    start_service, origins, origin, preflight_status, allowed
):
    client = start_service(cors_origins=origins)
    headers = {"Origin": origin, "Access-Control-Request-Headers": "content-type"}
    preflight = client.options(
        "/predict", headers=headers | {"Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == preflight_status
    response = client.post("/predict", json={"equation": "1+1="}, headers=headers)
    for answer in (preflight, response):
        assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/predict", 405), ("DELETE", "/health", 405)],
)
def test_errors_of_the_framework_are_json(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)
