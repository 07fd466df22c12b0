"""The fast route has FastAPI's manners: whatever is sent, both ways answer the same."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from arithmetic.grammar import OPERATIONS, Equation
from arithmetic.layouts import Answer
from arithmetic.tokenizer import CHARACTERS
from serving.app import Service, create_app
from serving.fast import write
from serving.front import Receive, Scope, Send
from serving.live import Served
from serving.schemas import Prediction, Question
from serving.settings import Settings
from tests.folder_registry import Answers
from tests.serving_process import EXACT, pulled


def application() -> Service:
    settings = Settings(mlflow_tracking_uri="http://127.0.0.1:1", log_sample=0)
    return create_app(settings, Answers(lambda *_: pulled(EXACT)))


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[TestClient, TestClient]]:
    """A client of the service, and one whose requests all go through FastAPI."""
    fast, slow = application(), application()

    async def by_fastapi(scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        await slow.front.through(slow.framework, scope, receive, send, request_id)

    slow.fast = by_fastapi  # type: ignore[assignment]
    with TestClient(fast) as one, TestClient(slow) as other:
        yield one, other


def answers(client: TestClient, body: bytes, media_type: str | None) -> tuple[Any, ...]:
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = client.post("/predict", content=body, headers=headers)
    said = response.json()
    said.pop("latency_ms", None)
    return response.status_code, response.headers["content-type"], list(said), said


def same(both: tuple[TestClient, TestClient], body: bytes, media_type: str | None) -> int:
    fast, slow = (answers(client, body, media_type) for client in both)
    assert fast == slow
    return int(fast[0])


def test_all_operations_and_options(both):
    for equation, work, beam in product(["951+11=", "7-12=", "007-7="], [True, False], [1, 2]):
        body = {"equation": equation, "show_work": work, "beam_width": beam}
        same(both, json.dumps(body).encode(), "application/json")


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/vnd.ours+json", 200),
        ("text/json", 415),
        (None, 415),
    ],
)
def test_media_types(both, media_type, status):
    assert same(both, b'{"equation": "1+1="}', media_type) == status


TEXT = st.one_of(
    st.from_regex(r"[0-9]{1,4}[-+*/=x][0-9]{1,4}=?", fullmatch=True),
    st.text(max_size=70),
    st.text("0123456789+-*/=٣ \n", max_size=12),
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(["equation", "show_work", "beam_width", "equatoin"])


@effort(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.one_of(
        st.fixed_dictionaries({"equation": TEXT}),
        st.fixed_dictionaries({"equation": TEXT}, optional={"show_work": VALUE}),
        st.dictionaries(FIELDS, VALUE),
        VALUE,
    ).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_body_is_answered_the_same_both_ways(both, body):
    assert same(both, body, "application/json") in (200, 400, 422)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("version", ["1", "12", 'a"b'])
def test_the_written_json_is_the_schema_s_own(operation, version):
    """All characters that a model can write, and a version with what JSON escapes."""
    served = Served.__new__(Served)
    object.__setattr__(served, "version", version)
    text = f"12{operation}7="
    question = Question(equation=text)
    answer = Answer(CHARACTERS + "?", False, True, "")
    written = write(question, Equation(12, operation, 7), answer, served, 0.0004116)
    expected = Prediction(
        equation=text,
        predicted_answer=answer.text,
        full_output=text + answer.text,
        latency_ms=0.412,
        model_version=version,
    )
    assert written.decode() == expected.model_dump_json(exclude_none=True)
