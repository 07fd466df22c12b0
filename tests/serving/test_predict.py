"""POST /predict and /predict/batch: what they answer and how they reject."""

import pytest

from arithmetic.grammar import Equation
from benchmarks.serving_process import let_raise
from serving.settings import Settings
from tests.serving.model_directories import make_model

QUESTIONS: dict[str, dict[str, object]] = {
    "/predict": {"equation": "1+1="},
    "/predict/batch": {"equations": ["1+1="]},
    "/invocations": {"inputs": ["1+1="]},
}


def ask(client, equation, **fields):
    return client.post("/predict", json={"equation": equation, **fields})


def test_predict_answers_with_the_documented_fields(client):
    response = ask(client, "95+16=")
    assert response.status_code == 200
    body = response.json()
    assert body.pop("latency_ms") > 0
    assert body == {
        "equation": "95+16=",
        "predicted_answer": "111",
        "full_output": "95+16=111",
        "model_version": "local",
    }


def test_predict_returns_the_models_steps_only_where_asked_for(client):
    assert "steps" not in ask(client, "7-12=").json()
    steps = ask(client, "7-12=", steps=True).json()["steps"]
    assert steps[0] == "ones: 7 - 2 = 5, borrow 0"
    assert len(steps) > 1


@pytest.mark.parametrize(
    ("equation", "code"),
    [
        ("", "empty"),
        ("1*1=", "unknown_operation"),
        ("100+1=", "out_of_range"),
        ("٣+٤=", "unknown_character"),
    ],
)
def test_predict_names_what_is_wrong_with_an_equation(client, equation, code):
    response = ask(client, equation)
    assert response.status_code == 422
    (error,) = response.json()["detail"]
    assert (error["type"], error["loc"], error["input"]) == (code, ["body", "equation"], equation)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{}", ["body", "equation"]),
        (b'{"equation": 1}', ["body", "equation"]),
        (b'{"equation": "1+1=", "x": NaN}', ["body", "x"]),
        (b'{"equation": "1+1=", "steps": 1}', ["body", "steps"]),
        (b'{"equation": "\\ud800"}', ["body"]),
        (b'{"equation": "' + b"1" * 65 + b'"}', ["body", "equation"]),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_body_that_is_not_the_schema_is_422_with_its_place(client, path, body, place):
    if path.endswith("batch"):
        body = body.replace(b'"equation"', b'"equations"')
        place = ["equations" if part == "equation" else part for part in place]
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    places = [error["loc"] for error in response.json()["detail"]]
    assert any(found[: len(place)] == place for found in places)


@pytest.mark.parametrize("body", [b"\xff", b"[" * 10_000])
@pytest.mark.parametrize(("path", "status"), [("/predict", 422), ("/predict/batch", 400)])
def test_a_body_that_cannot_be_decoded_is_rejected(client, path, status, body):
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, list(response.json())) == (status, ["detail"])


def test_a_body_nested_up_to_the_limit_of_recursion_is_rejected(client):
    statuses = set()
    for depth in range(800, 1100):
        body = b"[" * depth + b"]" * depth
        response = client.post(
            "/predict/batch", content=body, headers={"Content-Type": "application/json"}
        )
        statuses.add(response.status_code)
    assert statuses == {400, 422}


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json; charset=utf-8", True),
        ("application/x+json", True),
        ("application/jsonx", False),
        ("", False),
    ],
)
def test_a_media_type_other_than_json_is_415(client, content_type, is_json):
    headers, body = {"Content-Type": content_type}, b'{"equation": "1+1="}'
    assert client.post("/predict", content=body, headers=headers).status_code == (
        200 if is_json else 415
    )
    for path in ("/predict/batch", "/invocations") if not is_json else ():
        response = client.post(path, content=b"{}", headers=headers)
        assert response.status_code == 415
        assert "application/json" in response.text


def test_batch_answers_in_order_by_one_version(client):
    response = client.post("/predict/batch", json={"equations": ["95+16=", "7-12=", "0+0="]})
    assert response.status_code == 200
    assert response.json()["predicted_answers"] == ["111", "-5", "0"]
    assert response.json()["model_version"] == "local"


def test_batch_rejects_all_and_names_each_equation_and_is_bounded(client):
    response = client.post("/predict/batch", json={"equations": ["1+1=", "x", "2+2=", ""]})
    assert response.status_code == 422
    places = [error["loc"] for error in response.json()["detail"]]
    assert places == [["body", "equations", 1], ["body", "equations", 3]]
    for count in (0, 1025):
        body = {"equations": ["1+1="] * count}
        assert client.post("/predict/batch", json=body).status_code == 422


def test_an_equation_on_which_the_model_raises_is_500_and_only_that_one(start_service, tmp_path):
    model = make_model(tmp_path / "raising")
    let_raise(model)
    client = start_service(model_uri=str(model))
    response = ask(client, "5+6=")
    assert (response.status_code, list(response.json())) == (500, ["detail"])
    assert ask(client, "6+5=").json()["predicted_answer"] == "11"
    batch = client.post("/predict/batch", json={"equations": ["1+1=", "5+6="]})
    assert batch.status_code == 500


def test_without_a_model_it_is_503_with_retry_after(start_service, tmp_path):
    client = start_service(model_uri=str(tmp_path / "missing"))
    for path, body in [
        *QUESTIONS.items(),
        ("/explain", QUESTIONS["/predict"]),
        ("/v2/models/exact/infer", {}),
    ]:
        response = client.post(path, json=body)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "2"
        assert "missing" in response.text


def test_with_a_full_queue_it_is_503_with_retry_after_and_probes_answer(client):
    queue = client.app.state.manager.model.batcher.get_queue(Equation(1, "+", 1))
    queue.settings = Settings.model_construct(queue_limit=0)
    for path, body in QUESTIONS.items():
        response = client.post(path, json=body)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "waiting" in response.text
    assert client.get("/livez").status_code == client.get("/health").status_code == 200
