"""The service over HTTP: right answers, clear refusals, and never `ok` without a model."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from arithmetic import bundle
from arithmetic.engine import Engine
from arithmetic.errors import RegistryProblem
from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from registry import signing
from registry.pull import Pulled
from serving.__main__ import listen
from serving.app import create_app
from serving.batching import Batcher, Limits
from serving.metrics import Metrics
from serving.problems import ModelFailed
from serving.settings import InvalidSettings, Settings, from_environment
from tests.folder_registry import Answers


def settings(tmp_path: Path) -> Settings:
    return Settings(
        mlflow_tracking_uri="http://127.0.0.1:1", model_cache=tmp_path, pull_retry_seconds=0.05
    )


def pulls(folder: Path) -> Answers:
    """A registry whose answer is a folder on this disk; test_registry_pull.py has the real one."""
    return Answers(
        lambda *_: Pulled("arithmetic-lm", "7", folder, bundle.digest(folder), errors=1000)
    )


@pytest.fixture
def client(tiny_bundle, tmp_path) -> Iterator[TestClient]:
    with TestClient(create_app(settings(tmp_path), pulls(tiny_bundle))) as client:
        yield client


def test_a_prediction_is_the_model_s_own_answer(client, tiny_bundle):
    expected = Engine(tiny_bundle).answer([Equation(7, "+", 2)])[0].text
    response = client.post("/predict", json={"equation": "7+2="})
    assert response.status_code == 200
    body = response.json()
    assert body.pop("latency_ms") > 0
    assert body == {
        "equation": "7+2=",
        "predicted_answer": expected,
        "full_output": f"7+2={expected}",
        "model_version": "7",
    }


def test_the_steps_are_shown_when_asked_for(client):
    body = client.post("/predict", json={"equation": "7-2=", "show_work": True}).json()
    assert body["work"][0].startswith("ones: 7 - 2 = ")


@pytest.mark.parametrize(
    ("equation", "says"),
    [
        ("٣+٤=", "character '٣' at position 1"),
        ("10+1=", "more than 1 digits"),
        ("1*1=", "'*'"),
        ("", "empty"),
        ("1+1=\n", r"'\n'"),
    ],
)
def test_what_the_grammar_refuses_is_422_in_fastapi_s_form(client, equation, says):
    response = client.post("/predict", json={"equation": equation})
    assert response.status_code == 422
    (error,) = response.json()["detail"]
    assert error["loc"] == ["body", "equation"]
    assert error["input"] == equation
    assert says in error["msg"]


@pytest.mark.parametrize(
    "body", [{}, {"equation": 5}, {"equation": None}, {"equation": "1" * 65}, [], {"equatoin": ""}]
)
def test_a_body_of_another_form_is_422(client, body):
    response = client.post("/predict", json=body)
    assert response.status_code == 422
    assert response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"equation": NaN}',
        b'{"equation": 1e999}',
        b'{"equation": "1+1=", "x": NaN}',
        b'{"equation": "\\ud800"}',
        b'{"equation": "1+1=\\ud800"}',
        b"{",
        b"",
    ],
)
def test_a_body_that_json_cannot_repeat_is_422_too(client, body):
    response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"]


def test_health_says_what_is_served(client, tiny_bundle):
    response = client.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert body.pop("registry").startswith("reachable since 20")
    expected = {
        "status": "ok",
        "model_loaded": True,
        "model_uri": "models:/arithmetic-lm@Production",
        "model_name": "arithmetic-lm",
        "model_version": "7",
        "bundle_sha256": bundle.digest(tiny_bundle),
        "operations": ["+", "-"],
        "max_operand": 9,
        "source": "registry",
        "reason": None,
        "refused": {},
        "candidate": None,
    }
    assert {key: body[key] for key in expected} == expected
    assert body["accuracy"]["checked"] == body["accuracy"]["wrong"] == 0
    assert body["drift"]["reference"] == "every equation of the domain alike"


def test_without_a_model_health_is_not_ok_and_predictions_are_503(tmp_path):
    def nothing(*_: object) -> Pulled:
        raise RegistryProblem("the registry is on holiday; ask again")

    with TestClient(create_app(settings(tmp_path), Answers(nothing))) as client:
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "unavailable"
        assert health.json()["model_loaded"] is False
        assert health.json()["reason"] == "the registry is on holiday; ask again"
        predicted = client.post("/predict", json={"equation": "1+1="})
        assert predicted.status_code == 503
        assert "on holiday" in predicted.json()["detail"]


def test_a_model_that_comes_later_is_loaded_then(tiny_bundle, tmp_path):
    attempts = []

    def at_the_third(*arguments: object) -> Pulled:
        attempts.append(arguments)
        if len(attempts) < 3:
            raise RegistryProblem("not yet")
        return Pulled("arithmetic-lm", "7", tiny_bundle, bundle.digest(tiny_bundle), errors=1000)

    with TestClient(create_app(settings(tmp_path), Answers(at_the_third))) as client:
        deadline = time.monotonic() + 30
        while client.get("/health").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.get("/health").json()["status"] == "ok"


def test_a_damaged_bundle_is_not_served(tiny_bundle, tmp_path):
    (tiny_bundle / bundle.decoder("+")).write_bytes(b"no graph")
    with TestClient(create_app(settings(tmp_path), pulls(tiny_bundle))) as client:
        health = client.get("/health").json()
        assert health["model_loaded"] is False
        assert "addition.onnx does not load" in health["reason"]


def test_docs_show_the_routes_with_examples(client):
    paths = client.get("/openapi.json").json()
    assert set(paths["paths"]) >= {"/predict", "/health", "/metrics"}
    assert paths["components"]["schemas"]["Question"]["examples"] == [{"equation": "951+11="}]
    assert client.get("/docs").status_code == 200


def test_a_busy_port_is_said_in_one_sentence():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"cannot listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port)


def answer(text: str) -> Answer:
    return Answer(text, True, True, "")


def test_requests_of_one_turn_share_a_batch_and_a_lone_one_does_not_wait():
    sizes = []

    def model(equations: Sequence[Equation]) -> list[Answer]:
        sizes.append(len(equations))
        return [answer(str(equation)) for equation in equations]

    async def ask() -> None:
        batcher = Batcher(model, Limits(largest_batch=4), Metrics(), "7")
        equations = [Equation(n, "+", 0) for n in range(10)]
        answers = await asyncio.gather(*map(batcher.answer, equations))
        assert [a.text for a in answers] == [str(equation) for equation in equations]
        await batcher.answer(equations[0])

    asyncio.run(ask())
    assert sizes == [4, 4, 2, 1]


def test_one_bad_equation_does_not_harm_its_batch():
    def model(equations: Sequence[Equation]) -> list[Answer]:
        if Equation(3, "+", 0) in equations:
            raise RuntimeError("three")
        return [answer("fine") for _ in equations]

    async def ask() -> list[Answer | BaseException]:
        batcher = Batcher(model, Limits(), Metrics(), "7")
        return await asyncio.gather(
            *(batcher.answer(Equation(n, "+", 0)) for n in range(6)), return_exceptions=True
        )

    results = asyncio.run(ask())
    assert [n for n, result in enumerate(results) if isinstance(result, ModelFailed)] == [3]
    assert results.count(answer("fine")) == 5


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MLFLOW_TRACKING_URI", None, "MLFLOW_TRACKING_URI is not set"),
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db", "give an http:// address"),
        ("MLFLOW_TRACKING_URI", "http://x:port", "this is no address"),
        ("MODEL_URI", "arithmetic-lm", "write models:/arithmetic-lm@Production"),
        ("PORT", "eighty", "PORT is 'eighty'"),
        ("PORT", "0", "PORT is '0'"),
        ("TRUSTED_PROXIES", "10.0.0.1,load-balancer", "'load-balancer' is no address"),
        ("TRUSTED_PROXIES", "10.1.2.3/16", "'10.1.2.3/16' is no address"),
        ("TRUSTED_KEY", "/nowhere.pem", "/nowhere.pem cannot be read"),
        ("TRUSTED_KEY", __file__, "is no public key in PEM"),
        ("OPERATOR_USERNAME", "me", "give OPERATOR_USERNAME and OPERATOR_PASSWORD both"),
        ("OPERATOR_PASSWORD", "mine", "OPERATOR_PASSWORD: give OPERATOR_USERNAME and"),
    ],
)
def test_a_bad_environment_is_named(monkeypatch, variable, value, says):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings) as refusal:
        from_environment()
    assert says in str(refusal.value)


def test_a_refused_address_does_not_show_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://me:secret@host")
    with pytest.raises(InvalidSettings) as refusal:
        from_environment()
    assert "ftp://host" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    """As compose.yaml writes one that nobody gave."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for name in ("HARD_CASES", "TRUSTED_KEY", "PORT", "API_KEYS_FILE"):
        monkeypatch.setenv(name, "")
    assert from_environment().hard_cases_file.name == "hard-cases.jsonl"
    monkeypatch.setenv("TRUSTED_PROXIES", " 10.0.0.1 , 10.1.0.0/16 ")
    assert from_environment().trusted_proxies == "10.0.0.1,10.1.0.0/16"


def test_an_unsigned_version_is_not_served_where_a_key_is_trusted(tiny_bundle, tmp_path):
    """It says why, and never `ok`; test_tampering.py has signed versions and a real server."""
    _, public = signing.make_keys(tmp_path / "pair")
    trusting = settings(tmp_path).model_copy(update={"trusted_key": public})
    with TestClient(create_app(trusting, pulls(tiny_bundle))) as client:
        response = client.get("/health")
        assert response.status_code == 503
        assert "is not signed" in response.json()["reason"]
