"""Random requests: no wrong status, every error JSON, every accepted equation answered exactly."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from arithmetic.grammar import Grammar, solve
from serving.app import create_app
from serving.settings import Settings

GRAMMAR = Grammar(("+", "-"), 99)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NUMBERS = st.integers(0, 120).map(str) | st.from_regex("[0-9]{1,4}", fullmatch=True)
EQUATIONS = st.builds(
    "{}{}{}{}".format, NUMBERS, st.sampled_from("+-*/^"), NUMBERS, st.sampled_from(["=", "", "=="])
) | st.text(alphabet="0123456789+-=* ٣a\n", max_size=10)
POST_PATHS = ["/predict", "/predict/batch", "/explain", "/invocations", "/v2/models/exact/infer"]
FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def client(exact_model, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    app = create_app(Settings(model_uri=str(exact_model), model_cache=cache, log_sample=0))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@FUZZ
@given(text=EQUATIONS)
def test_an_equation_is_answered_exactly_or_rejected(client, text):
    response = client.post("/predict", json={"equation": text, "steps": True})
    match = re.fullmatch(r"([0-9]{1,2})[+-]([0-9]{1,2})=", text)
    assert (response.status_code == 200) == (match is not None)
    if match:
        body = response.json()
        assert body["predicted_answer"] == solve(GRAMMAR.parse(text))
        assert body["full_output"] == text + body["predicted_answer"]
    else:
        assert response.status_code == 422
        assert response.json()["detail"][0]["input"] == text


@FUZZ
@given(path=st.sampled_from(POST_PATHS), body=JSON_VALUES)
def test_any_json_is_answered_or_rejected_in_json(client, path, body):
    content = json.dumps(body).encode()
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 422)
    assert isinstance(response.json(), dict)


@FUZZ
@given(
    path=st.sampled_from(POST_PATHS),
    body=st.binary(max_size=64),
    content_type=st.sampled_from(["application/json", "text/plain", ""]),
)
def test_any_bytes_are_rejected_in_json(client, path, body, content_type):
    response = client.post(path, content=body, headers={"Content-Type": content_type})
    assert response.status_code in (400, 415, 422)
    assert isinstance(response.json(), dict)


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"]),
    path=st.sampled_from([*POST_PATHS, "/", "/health", "/v2/models/x/versions/1"])
    | st.from_regex(r"/([a-z0-9%{}.~-][a-z0-9/%{}.~-]{0,20})?", fullmatch=True),
)
def test_any_method_and_path_is_answered_in_json(client, method, path):
    response = client.request(method, path, follow_redirects=False)
    assert response.status_code in (200, 307, 404, 405, 415)
    if method != "HEAD" and response.status_code >= 400:
        assert isinstance(response.json(), dict)
