"""The application as a whole: probes, documentation, middleware, errors."""

import re

import pytest
from fastapi import Request
from starlette.responses import JSONResponse

from serving.app import create_app
from serving.settings import Settings

PROBES = ["/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json", "/ping"]


@pytest.mark.parametrize("path", PROBES)
def test_probes_answer_get_and_head_alike(client, path):
    get, head = client.get(path), client.head(path)
    assert get.status_code == head.status_code == 200
    assert get.content
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("method", ["get", "head"])
def test_probes_say_503_without_a_model_and_the_process_is_still_alive(
    start_service, tmp_path, method
):
    client = start_service(model_uri=str(tmp_path / "missing"))
    status = {path: getattr(client, method)(path).status_code for path in PROBES}
    assert status["/livez"] == status["/metrics"] == status["/docs"] == 200
    assert status["/readyz"] == status["/health"] == status["/ping"] == 503


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


def test_docs_describe_every_route(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/predict/batch", "/invocations", "/health", "/v2"} <= paths.keys()
    predict = paths["/predict"]["post"]
    schema = predict["requestBody"]["content"]["application/json"]["schema"]
    assert schema["$ref"].endswith("/PredictRequest")
    assert {"200", "401", "422", "503", "504"} <= predict["responses"].keys()


def test_the_root_leads_to_the_documentation(client):
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/predict", 405), ("DELETE", "/health", 405)],
)
def test_errors_of_the_framework_are_json(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


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


def test_middleware_that_a_user_adds_applies_to_predict(start_service, exact_model):
    app = create_app(Settings(model_uri=str(exact_model)))

    @app.middleware("http")
    async def add_header(request: Request, call_next):
        response = await call_next(request)
        response.headers["X-Added"] = "yes"
        return response

    from starlette.testclient import TestClient

    with TestClient(app) as client:
        response = client.post("/predict", json={"equation": "1+1="})
    assert (response.status_code, response.headers["X-Added"]) == (200, "yes")


def test_a_route_that_a_user_adds_is_counted_and_documented(exact_model):
    app = create_app(Settings(model_uri=str(exact_model)))

    @app.get("/mine/{number}")
    async def mine(number: int) -> JSONResponse:
        return JSONResponse({"number": number})

    from starlette.testclient import TestClient

    with TestClient(app) as client:
        assert client.get("/mine/7").json() == {"number": 7}
        assert client.get("/mine/x").status_code == 422
        assert 'route="/mine/{number}"' in client.get("/metrics").text
        assert "/mine/{number}" in client.get("/openapi.json").json()["paths"]


PREFLIGHT = {
    "Origin": "https://page.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


def test_cors_is_off_by_default(client):
    assert client.options("/predict", headers=PREFLIGHT).status_code == 405
    origin = {"Origin": "https://page.example"}
    response = client.post("/predict", json={"equation": "1+1="}, headers=origin)
    assert "access-control-allow-origin" not in response.headers


def test_cors_origins_are_allowed_and_others_are_not(start_service):
    client = start_service(cors_origins="https://page.example, https://other.example")
    response = client.options("/predict", headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    response = client.options("/predict", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert response.status_code == 400
    response = client.post(
        "/predict", json={"equation": "1+1="}, headers={"Origin": "https://page.example"}
    )
    assert response.headers["access-control-allow-origin"] == "https://page.example"
