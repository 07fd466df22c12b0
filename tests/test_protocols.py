"""The neighbours' protocols, spoken by their own clients and compared with MLflow's own server."""

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from fastapi.testclient import TestClient
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.types import ColSpec, Schema
from tritonclient.utils import InferenceServerException

from arithmetic import bundle
from arithmetic.errors import RegistryProblem
from registry.pull import Pulled
from serving.app import create_app
from serving.protocols.scoring import MLFLOW_VERSION
from serving.settings import Settings
from tests.folder_registry import Answers
from tests.live_service import NAME, ROOT, VERSION, running

BUNDLE = ROOT / "bundle"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(BUNDLE, tmp_path_factory.mktemp("models")) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}") as client:
        yield client


@pytest.fixture(scope="module")
def unready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    def nothing(*_: object) -> Pulled:
        raise RegistryProblem("the registry is on holiday")

    settings = Settings(
        mlflow_tracking_uri="http://127.0.0.1:1", model_cache=tmp_path_factory.mktemp("models")
    )
    with TestClient(create_app(settings, Answers(nothing))) as client:
        yield client


# --- MLflow's scoring protocol ---------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow_s_own(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """`mlflow models serve`'s application over the same bundle as a registered version has it."""
    folder = tmp_path_factory.mktemp("pyfunc")
    package = folder / "code" / "arithmetic"
    shutil.copytree(ROOT / "arithmetic", package, ignore=shutil.ignore_patterns("__pycache__"))
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "equation")]),
        outputs=Schema([ColSpec("string", "answer")]),
    )
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(ROOT / "registry" / "pyfunc_model.py"),
        artifacts={"bundle": str(BUNDLE)},
        code_paths=[str(package)],
        signature=signature,
        pip_requirements=["mlflow"],
    )
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    return TestClient(scoring_server.init(model), raise_server_exceptions=False)


def test_mlflow_s_client_pings_asks_the_version_and_gets_answers(address):
    host, port = address.split(":")
    ours = ScoringServerClient(host, int(port))
    ours.ping()
    assert ours.get_version() == mlflow.__version__ == MLFLOW_VERSION
    frame = pd.DataFrame({"equation": ["951+11=", "7-12="]})
    expected = pd.DataFrame({"answer": ["962", "-5"]})
    assert ours.invoke(frame).get_predictions().equals(expected)
    assert ours.invoke(["951+11=", "7-12="]).get_predictions().equals(expected)
    with pytest.raises(Exception, match=r"error code 400.*not an operation"):
        ours.invoke(["2^3="])


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["equation"], "data": [["1+2="], ["4-9="]]}},
        {"dataframe_split": {"columns": ["equation"], "index": [5], "data": [["1+2="]]}},
        {"dataframe_split": {"columns": ["x", "equation"], "data": [[1, "1+2="]]}},
        {"dataframe_split": {"columns": ["equation"], "data": []}},
        {"dataframe_split": {"columns": ["eq"], "data": [["1+2="]]}},
        {"dataframe_split": {"data": [["1+2="]]}},
        {"dataframe_split": {"columns": ["equation"], "data": [["1+2=", "3"]]}},
        {"dataframe_split": [1]},
        {"dataframe_records": [{"equation": "1+2="}, {"equation": "4-9="}]},
        {"inputs": [{"equation": "1+2="}, {"equation": "4-9="}]},
        {"inputs": {"equation": ["1+2=", "4-9="]}},
        {"inputs": {"equation": "1+2="}},
        {"inputs": ["1+2=", "4-9="]},
        {"inputs": []},
        {"inputs": "1+2="},
        {"inputs": [{"equation": "1*2="}]},
        {"inputs": [{"equation": 5}]},
        {"inputs": [{"question": "1+2="}]},
        {"inputs": ["1+2="], "params": {"a": 1}},
        {"inputs": ["1+2="], "instances": ["1+2="]},
        {"instances": [{"equation": "1+2="}]},
        {"instances": {"equation": ["1+2=", "4-9="]}},
        {"instances": ["1+2="]},
        {"instances": []},
        {},
        [1],
        5,
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_what_mlflow_s_own_server_answers_this_answers_too(client, mlflow_s_own, body):
    """The same status; the same answers; where it refuses, an error in MLflow's form."""
    theirs = mlflow_s_own.post("/invocations", json=body)
    ours = client.post("/invocations", json=body)
    assert ours.status_code == theirs.status_code, theirs.text
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if ours.status_code == 200:
        assert ours.json() == theirs.json()
    else:
        assert set(ours.json()) == {"error_code", "message"} <= set(theirs.json())


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
    ],
)
def test_content_types_are_judged_as_by_mlflow(client, mlflow_s_own, content_type, status):
    body = b'{"inputs": ["1+2="]}'
    for server in (client, mlflow_s_own):
        answer = server.post("/invocations", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"\xff", b"[" * 100_000, b'{"inputs": [' + b"9" * 5000 + b"]}", b'{"inputs": NaN}'],
    ids=["half", "nothing", "no UTF-8", "deep", "a huge number", "NaN"],
)
def test_what_is_no_json_is_400_in_both_protocols(client, content):
    for path in ("/invocations", f"/v2/models/{NAME}/infer"):
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, path
        assert answer.json().keys() <= {"error_code", "message", "error"}


def test_more_equations_than_a_call_may_have_are_refused(client):
    for count, status in ((1024, 200), (1025, 400)):
        answer = client.post("/invocations", json={"inputs": ["1+2="] * count})
        assert answer.status_code == status


# --- Open Inference Protocol -------------------------------------------------------------------


@pytest.fixture(scope="module")
def triton_client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def equations(values: Any, shape: list[int], binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("equation", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=np.object_).reshape(shape), binary)
    return tensor


def test_nvidia_s_client_finds_the_model(triton_client):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready(NAME)
    assert triton_client.is_model_ready(NAME, VERSION)
    assert not triton_client.is_model_ready("another")
    assert not triton_client.is_model_ready(NAME, "8")
    assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = triton_client.get_model_metadata(NAME)
    assert metadata == triton_client.get_model_metadata(NAME, VERSION)
    assert (metadata["name"], metadata["versions"]) == (NAME, [VERSION])
    assert metadata["inputs"] == [{"name": "equation", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_nvidia_s_client_gets_answers_in_json_and_in_bytes(triton_client, binary_in, binary_out):
    """None: no output is named, and the client then asks for bytes by a parameter."""
    tensor = equations(["951+11=", "7-12=", "0+0=", "999+999="], [2, 2], binary_in)
    wanted = binary_out is not None and [triton.InferRequestedOutput("answer", binary_out)]
    result = triton_client.infer(NAME, [tensor], outputs=wanted or None, request_id="r1")
    answers = [value.decode() if isinstance(value, bytes) else value
               for value in result.as_numpy("answer").ravel()]  # fmt: skip
    assert answers == ["962", "-5", "0", "1998"]
    assert result.as_numpy("answer").shape == (2, 2)
    said = result.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == (NAME, VERSION, "r1")


def test_nvidia_s_client_is_told_what_is_wrong(triton_client):
    for arguments, says in [
        ({"model_name": "another"}, "no model 'another'"),
        ({"model_name": NAME, "model_version": "8"}, "version '8' .* not served"),
        ({"model_name": NAME, "request_compression_algorithm": "gzip"}, "'gzip' are not read"),
    ]:
        with pytest.raises(InferenceServerException, match=says):
            triton_client.infer(inputs=[equations(["1+1="], [1], True)], **arguments)
    with pytest.raises(InferenceServerException, match="not an operation"):
        triton_client.infer(NAME, [equations(["2^3="], [1], True)])
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        triton_client.infer(NAME, [equations([b"\xff"], [1], True)])


def test_a_named_version_answers(triton_client):
    tensor = equations(["1+1="], [1], True)
    result = triton_client.infer(NAME, [tensor], model_version=VERSION)
    assert result.as_numpy("answer").tolist() == [b"2"]


def test_a_candidate_beside_production_can_be_asked_by_its_number(tmp_path):
    """And only so, in shadow mode: whoever names no version is answered by Production."""
    digest = bundle.digest(BUNDLE)

    def by_uri(uri: str, *_: object) -> Pulled:
        return Pulled(NAME, "8" if uri.endswith("@Candidate") else VERSION, BUNDLE, digest)

    settings = Settings(
        mlflow_tracking_uri="http://127.0.0.1:1",
        model_cache=tmp_path,
        model_uri_candidate=f"models:/{NAME}@Candidate",
    )
    with TestClient(create_app(settings, Answers(by_uri))) as client:
        for _ in range(200):
            if client.get(f"/v2/models/{NAME}/versions/8/ready").status_code == 200:
                break
            time.sleep(0.05)
        assert client.get(f"/v2/models/{NAME}").json()["versions"] == [VERSION, "8"]
        for path, version in (
            ("/versions/8", "8"),
            (f"/versions/{VERSION}", VERSION),
            ("", VERSION),
        ):
            answer = client.post(f"/v2/models/{NAME}{path}/infer", json={"inputs": [GOOD]}).json()
            assert (answer["model_version"], answer["outputs"][0]["data"]) == (version, ["2"])
        assert client.get(f"/v2/models/{NAME}/versions/9").status_code == 404


GOOD: dict[str, Any] = {"name": "equation", "datatype": "BYTES", "shape": [1], "data": ["1+1="]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": GOOD},
        {"inputs": [GOOD, GOOD]},
        {"inputs": [{**GOOD, "name": "x"}]},
        {"inputs": [{**GOOD, "datatype": "FP32"}]},
        {"inputs": [{**GOOD, "shape": [2]}]},
        {"inputs": [{**GOOD, "shape": [True]}]},
        {"inputs": [{**GOOD, "shape": [-1]}]},
        {"inputs": [{**GOOD, "shape": [1] * 9}]},
        {"inputs": [{**GOOD, "shape": [1 << 20, 1 << 20], "data": []}]},
        {"inputs": [{**GOOD, "data": [1]}]},
        {"inputs": [{**GOOD, "data": [[[[[[[[[[["1+1="]]]]]]]]]]]}]},
        {"inputs": [{**GOOD, "parameters": {"shared_memory_region": "x"}}]},
        {"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]},
        {"inputs": [{**GOOD, "parameters": 5}]},
        {"inputs": [GOOD], "outputs": [{"name": "x"}]},
        {"inputs": [GOOD], "outputs": 5},
        {"inputs": [GOOD], "outputs": [{"name": "answer", "parameters": {"classification": 3}}]},
    ],
    ids=lambda body: json.dumps(body)[:80],
)
def test_a_request_against_the_inference_protocol_is_400_with_a_reason(client, body):
    answer = client.post(f"/v2/models/{NAME}/infer", json=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_refused_bodies_are_counted_by_reason(client):
    """Counters only grow, and other tests use the same service, so differences are compared."""

    def counted(reason):
        line = f'arithmetic_refused_total{{reason="{reason}"}} '
        rows = [row for row in client.get("/metrics").text.splitlines() if row.startswith(line)]
        return float(rows[0].removeprefix(line)) if rows else 0.0

    asked = [
        ("/invocations", {"inputs": ["1+"]}, "no_equals_sign"),
        ("/invocations", {"inputs": [1]}, "malformed_body"),
        (f"/v2/models/{NAME}/infer", {"inputs": []}, "malformed_body"),
        ("/v2/models/nobody/infer", {"inputs": []}, "unknown_model"),
    ]
    reasons = {"media_type", *(reason for _, _, reason in asked)}
    before = {reason: counted(reason) for reason in reasons}
    for path, body, _ in asked:
        assert client.post(path, json=body).status_code in (400, 404)
    text = {"Content-Type": "text/csv"}
    assert client.post("/invocations", content=b"equation", headers=text).status_code == 415
    assert client.post("/predict", content=b"equation", headers=text).status_code == 415
    assert {reason: counted(reason) - before[reason] for reason in reasons} == {
        "media_type": 2,
        "malformed_body": 2,
        "no_equals_sign": 1,
        "unknown_model": 1,
    }


@pytest.mark.parametrize("length", ["x", "-1", "9999999999999999999", "١", "", "0" * 5000])
def test_a_header_length_that_is_none_is_400(client, length):
    body = json.dumps({"inputs": [GOOD]}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer",
        content=body,
        headers={b"Inference-Header-Content-Length": length.encode()},
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("cut", [1, 4, 6, 11])
def test_binary_data_that_ends_too_early_is_400(client, cut):
    packed = (b"\x04\x00\x00\x001+1=" * 2)[:-cut]
    tensor: dict[str, Any] = {"name": "equation", "datatype": "BYTES", "shape": [2]}
    tensor["parameters"] = {"binary_data_size": len(packed)}
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer",
        content=head + packed,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 400, answer.text
    assert "ends within" in answer.text or "has 1 elements" in answer.text


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ping", None),
        ("/v2/health/ready", None),
        (f"/v2/models/{NAME}", None),
        (f"/v2/models/{NAME}/ready", None),
        ("/invocations", {"inputs": ["1+1="]}),
        (f"/v2/models/{NAME}/infer", {"inputs": [GOOD]}),
    ],
)
def test_without_a_model_both_say_503(unready, path, body):
    answer = unready.get(path) if body is None else unready.post(path, json=body)
    assert answer.status_code == 503


def test_both_stand_in_the_documentation_with_examples(client):
    paths = client.get("/openapi.json").json()["paths"]
    examples = paths["/invocations"]["post"]["requestBody"]["content"]["application/json"]
    assert set(examples["examples"]) == {"dataframe_split", "instances", "inputs"}
    for example in examples["examples"].values():
        assert client.post("/invocations", json=example["value"]).status_code == 200
    infer = paths["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert client.post(f"/v2/models/{NAME}/infer", json=infer["example"]).status_code == 200
