"""MLflow's scoring protocol and the Open Inference Protocol, compared with MLflow's own server."""

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

ROOT = Path(__file__).resolve().parents[2]
NAME = "exact"


@pytest.fixture(scope="module")
def mlflow_server(exact_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Return `mlflow models serve`'s application over the same model."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import scoring_server
    from mlflow.types import ColSpec, Schema

    folder = tmp_path_factory.mktemp("pyfunc")
    package = folder / "code" / "arithmetic"
    shutil.copytree(ROOT / "arithmetic", package, ignore=shutil.ignore_patterns("__pycache__"))
    inputs, outputs = (Schema([ColSpec("string", name)]) for name in ("equation", "answer"))
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(ROOT / "registry" / "pyfunc_model.py"),
        artifacts={"model": str(exact_model)},
        code_paths=[str(package)],
        signature=ModelSignature(inputs, outputs),
        pip_requirements=["mlflow"],
    )
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    return TestClient(scoring_server.init(model), raise_server_exceptions=False)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["equation"], "data": [["1+2="], ["4-9="]]}},
        {"dataframe_split": {"columns": ["x", "equation"], "index": [5], "data": [[1, "1+2="]]}},
        {"dataframe_split": {"columns": ["eq"], "data": [["1+2="]]}},
        {"dataframe_split": {"columns": ["equation"], "data": [["1+2=", "3"]]}},
        {"dataframe_records": [{"equation": "1+2="}, {"equation": "4-9="}]},
        {"inputs": [{"equation": "1+2="}, {"equation": "4-9="}]},
        {"inputs": {"equation": ["1+2=", "4-9="]}},
        {"inputs": ["1+2=", "4-9="]},
        {"inputs": []},
        {"inputs": "1+2="},
        {"inputs": [{"equation": "1*2="}]},
        {"inputs": [{"equation": 5}]},
        {"inputs": [{"question": "1+2="}]},
        {"inputs": ["1+2="], "params": {"a": 1}},
        {"inputs": ["1+2="], "instances": ["1+2="]},
        {"instances": ["1+2="]},
        {},
        [1],
    ],
    ids=json.dumps,
)
def test_invocations_answers_as_mlflows_own_server(client, mlflow_server, body):
    theirs = mlflow_server.post("/invocations", json=body)
    ours = client.post("/invocations", json=body)
    assert ours.status_code == theirs.status_code, theirs.text
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if ours.status_code == 200:
        assert ours.json() == theirs.json()
    else:
        assert set(ours.json()) == {"error_code", "message"} <= set(theirs.json())


def test_ping_answers_as_mlflows_own_server(client, mlflow_server):
    ours, theirs = client.get("/ping"), mlflow_server.get("/ping")
    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)


@pytest.mark.parametrize("path", ["/invocations", f"/v2/models/{NAME}/infer"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b'{"inputs": [' + b"9" * 5000 + b"]}", b'{"inputs": NaN}'],
    ids=["nothing", "deep", "a huge number", "NaN"],
)
def test_a_body_that_is_not_valid_json_is_400_in_the_protocols_form(client, path, content):
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    answer = response.json()
    assert "body" in (answer["message"] if path == "/invocations" else answer["error"])


@pytest.mark.parametrize(("count", "status"), [(1024, 200), (1025, 400)])
def test_the_number_of_equations_is_bounded(client, count, status):
    response = client.post("/invocations", json={"inputs": ["1+2="] * count})
    assert response.status_code == status


TENSOR = {"name": "equation", "datatype": "BYTES", "shape": [1], "data": ["1+1="]}
WITHOUT_DATA = {name: value for name, value in TENSOR.items() if name != "data"}


def test_infer_answers_in_the_shape_of_the_equations(client):
    data = [["1+2=", "7-12="], ["0+0=", "99+99="]]
    body = {"id": "r1", "inputs": [{**TENSOR, "shape": [2, 2], "data": data}]}
    for path in ("infer", "versions/local/infer"):
        response = client.post(f"/v2/models/{NAME}/{path}", json=body)
        assert response.status_code == 200
        content = response.json()
        assert content.pop("outputs") == [
            {**TENSOR, "name": "answer", "shape": [2, 2], "data": ["3", "-5", "0", "198"]}
        ]
        assert content == {"model_name": NAME, "model_version": "local", "id": "r1"}


def test_metadata_and_readiness_of_server_and_model(client):
    assert client.get("/v2").json()["extensions"] == []
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/local"):
        assert client.get(f"{path}/ready").json() == {"name": NAME, "ready": True}
        metadata = client.get(path).json()
        assert metadata["versions"] == ["local"]
        assert metadata["inputs"] == [{"name": "equation", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("path", ["nobody", f"{NAME}/versions/8"])
def test_another_model_or_version_is_404(client, path):
    for response in (
        client.get(f"/v2/models/{path}"),
        client.get(f"/v2/models/{path}/ready"),
        client.post(f"/v2/models/{path}/infer", json={"inputs": [TENSOR]}),
    ):
        assert response.status_code == 404
        assert "not served" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [TENSOR, TENSOR]},
        {"inputs": [{**TENSOR, "name": "x"}]},
        {"inputs": [{**TENSOR, "datatype": "FP32"}]},
        {"inputs": [{**TENSOR, "shape": [2]}]},
        {"inputs": [{**TENSOR, "shape": [-1]}]},
        {"inputs": [{**TENSOR, "shape": [1] * 9}]},
        {"inputs": [{**TENSOR, "data": [1]}]},
        {"inputs": [{**TENSOR, "data": [[[[[[[[[[["1+1="]]]]]]]]]]]}]},
        {"inputs": [{**TENSOR, "data": ["1+"]}]},
        {"inputs": [{**WITHOUT_DATA, "parameters": {"shared_memory_region": "x"}}]},
        {"inputs": [TENSOR], "id": "\ud800"},
    ],
    ids=json.dumps,
)
def test_a_request_against_the_protocol_is_400_with_a_reason(client, body):
    headers = {"Content-Type": "application/json"}
    path = f"/v2/models/{NAME}/infer"
    response = client.post(path, content=json.dumps(body), headers=headers)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
