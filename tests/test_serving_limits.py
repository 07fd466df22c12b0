"""Keys, rates and bulk: who may ask, how often, and how much at once."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from arithmetic.grammar import Equation, solve
from serving.app import create_app
from serving.auth import keys_from
from serving.limits import RateLimit, bucket_of
from serving.settings import InvalidSettings, Settings
from tests.folder_registry import Answers
from tests.serving_process import (
    EXACT,
    ROOT,
    pulled,
    question,
    read_response,
    request,
    serving_process,
)


def settings(**given: object) -> Settings:
    return Settings(mlflow_tracking_uri="http://127.0.0.1:1", log_sample=0, **given)  # type: ignore[arg-type]


@contextmanager
def client(**given: object) -> Iterator[TestClient]:
    with TestClient(create_app(settings(**given), Answers(lambda *_: pulled(EXACT)))) as made:
        yield made


def entry(name: str, key: str) -> str:
    return f"{name}={hashlib.sha256(key.encode()).hexdigest()}"


KEYS = ",".join([entry("old", "first-key"), entry("new", "second-key")])
ASK = {"equation": "951+11="}


def test_without_a_key_only_the_health_routes_answer():
    with client(api_keys=KEYS) as service:
        for path in ("/livez", "/readyz", "/health"):
            assert service.get(path).status_code == 200
        for response in (
            service.post("/predict", json=ASK),
            service.post("/predict", json=ASK, headers={"X-API-Key": "third-key"}),
            service.post("/predict", json=ASK, headers={"Authorization": "Basic first-key"}),
            service.get("/metrics"),
            service.get("/docs"),
            service.get("/healthy"),
        ):
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert "API key" in response.json()["detail"]
            assert response.headers["x-request-id"]


# The same two questions in every protocol that is spoken.
PROTOCOLS: list[tuple[str, dict[str, object]]] = [
    ("/predict/batch", {"equations": ["1+1=", "2+2="]}),
    ("/invocations", {"inputs": ["1+1=", "2+2="]}),
    (
        "/v2/models/arithmetic-lm/infer",
        {
            "inputs": [
                {"name": "equation", "datatype": "BYTES", "shape": [2], "data": ["1+1=", "2+2="]}
            ]
        },
    ),
]


@pytest.mark.parametrize(("path", "body"), PROTOCOLS)
def test_no_protocol_is_a_way_around_the_keys(path, body):
    with client(api_keys=KEYS) as service:
        refused = service.post(path, json=body)
        assert refused.status_code == 401
        assert "API key" in refused.json()["detail"]
        good = {"Authorization": "Bearer first-key"}
        assert service.post(path, json=body, headers=good).status_code == 200
        for asked_by_whatever_runs_it in ("/ping", "/v2/health/live", "/v2/health/ready"):
            assert service.get(asked_by_whatever_runs_it).status_code == 200


@pytest.mark.parametrize(("path", "body"), PROTOCOLS)
def test_no_protocol_is_a_way_around_the_rate(path, body):
    """Each equation counts, however it is sent; one limit holds for all of them."""
    with client(rate_limit=0.001, rate_burst=5) as service:
        assert [service.post(path, json=body).status_code for _ in range(2)] == [200, 200]
        assert service.post("/predict", json=ASK).status_code == 200
        refused = service.post(path, json=body)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0


def test_several_keys_are_good_at_once():
    with client(api_keys=KEYS) as service:
        for header in (
            {"Authorization": "Bearer first-key"},
            {"authorization": "bearer second-key"},
            {"X-API-Key": "second-key"},
        ):
            assert service.post("/predict", json=ASK, headers=header).status_code == 200


def test_keys_come_from_a_file_too(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text(KEYS.replace(",", "\n") + "\n")
    keys = keys_from(settings(api_keys_file=file))
    assert keys is not None
    assert keys.name_of([(b"x-api-key", b"second-key")]) == "new"
    assert keys.name_of([(b"x-api-key", b"")]) is None
    assert keys.name_of([]) is None
    assert keys_from(settings()) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"api_keys": "name=short"}, "API_KEYS has an entry that is not NAME=SHA256"),
        ({"api_keys": KEYS + ",second-key"}, "entry 3"),
        ({"api_keys": f"{KEYS},{KEYS}"}, "a name twice"),
        ({"api_keys_file": "/nowhere"}, "API_KEYS_FILE /nowhere cannot be read"),
        ({"api_keys_file": "/dev/null"}, "API_KEYS_FILE has an entry"),
        ({"api_keys": KEYS, "api_keys_file": "/dev/null"}, "set one of them"),
    ],
)
def test_keys_that_are_none_stop_the_start_and_are_not_shown(given, says):
    """An empty file must not open the service; a key pasted by mistake must not be logged."""
    with pytest.raises(InvalidSettings) as refusal:
        keys_from(settings(**given))
    assert says in str(refusal.value)
    assert "second-key" not in str(refusal.value)


def test_the_command_makes_a_key_and_its_entry():
    done = subprocess.run(
        [sys.executable, "-m", "serving.auth", "mobile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    key, line = re.findall(r":  (\S+)", done.stdout)
    keys = keys_from(settings(api_keys=line))
    assert keys is not None
    assert keys.name_of([(b"x-api-key", key.encode())]) == "mobile"


def test_a_rate_is_per_client_and_says_when_to_come_back():
    with client(rate_limit=0.5, rate_burst=3, api_keys=KEYS) as service:
        mine = {"X-API-Key": "first-key"}
        codes = [service.post("/predict", json=ASK, headers=mine).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        refused = service.post("/predict", json=ASK, headers=mine)
        assert 1 <= int(refused.headers["retry-after"]) <= 3
        assert "come back in" in refused.json()["detail"]
        other = service.post("/predict", json=ASK, headers={"X-API-Key": "second-key"})
        assert other.status_code == 200
        assert service.get("/health").status_code == 200  # probes are not counted


def test_a_bulk_call_costs_as_much_as_its_equations():
    with client(rate_limit=0.001, rate_burst=10) as service:
        assert service.post("/predict/batch", json={"equations": ["1+1="] * 8}).status_code == 200
        assert service.post("/predict/batch", json={"equations": ["1+1="] * 8}).status_code == 429


@pytest.mark.parametrize(("path", "body"), PROTOCOLS)
def test_more_than_a_burst_is_answered_and_owed(path, body):
    """A batch may have 1,024 equations, whatever the burst; the next one waits until it is paid."""
    with client(rate_limit=10, rate_burst=1) as service:
        assert service.post(path, json=body).status_code == 200
        refused = service.post(path, json=body)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"


def test_the_limit_is_exact_and_refills(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("serving.limits.time.clock_gettime", lambda _: now[0])
    limit = RateLimit(rate=10, burst=5)
    assert [limit.take("a") > 0 for _ in range(7)] == [False] * 5 + [True] * 2
    assert limit.take("b") == 0
    assert limit.take("a") == pytest.approx(0.1)
    now[0] += 0.1001
    assert [limit.take("a") > 0 for _ in range(2)] == [False, True]
    now[0] += 100
    assert [limit.take("a") > 0 for _ in range(6)] == [False] * 5 + [True]


@pytest.mark.parametrize(("trusted", "believed"), [("", False), ("127.0.0.1", True)])
def test_an_address_is_believed_from_a_trusted_proxy_alone(tmp_path: Path, trusted, believed):
    """Else whoever writes X-Forwarded-For chooses the bucket that is charged."""
    with serving_process(
        tmp_path / "log", rate_limit=0.01, rate_burst=1, trusted_proxies=trusted
    ) as running:
        first, second = (
            running.ask(question("1+1=", f"X-Forwarded-For: {address}"))[0]
            for address in ("10.0.0.1", "10.0.0.2")
        )
    assert (first, second) == (200, 200 if believed else 429)


def test_processes_share_one_limit(tmp_path: Path):
    """Four processes at once take from one bucket of 200: exactly 200 are admitted."""
    file = tmp_path / "limits"
    code = (
        "import sys; from pathlib import Path; from serving.limits import RateLimit;"
        "limit = RateLimit(0.001, 200, Path(sys.argv[1]));"
        "print(sum(limit.take('a') == 0 for _ in range(100)))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert sum(int(process.communicate()[0]) for process in processes) == 200


def test_an_ipv6_customer_is_its_64_bits():
    assert bucket_of("2001:db8::1") == bucket_of("2001:db8::ffff:1")
    assert bucket_of("2001:db8::1") != bucket_of("2001:db8:0:1::1")
    assert bucket_of("10.0.0.1") != bucket_of("10.0.0.2")
    assert bucket_of("::ffff:1.2.3.4") == bucket_of("1.2.3.4")
    assert bucket_of("unix:") == "unix:", "a proxy's own word must not be a 500"


@pytest.fixture(scope="module")
def plain() -> Iterator[TestClient]:
    with client() as service:
        yield service


def test_1024_equations_in_one_call_by_one_version(plain):
    asked = [Equation(n % 1000, "+-"[n % 2], n * 7 % 1000) for n in range(1024)]
    response = plain.post("/predict/batch", json={"equations": [str(e) for e in asked]})
    assert response.status_code == 200
    body = response.json()
    assert body["predicted_answers"] == [solve(equation) for equation in asked]
    assert body["model_version"] == "7"
    assert body["latency_ms"] > 0


def test_a_bulk_call_is_refused_whole_and_every_culprit_is_named(plain):
    response = plain.post("/predict/batch", json={"equations": ["1+1=", "1+", "2+2=", "x"]})
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert [error["loc"] for error in detail] == [["body", "equations", n] for n in (1, 3)]
    assert [error["input"] for error in detail] == ["1+", "x"]


@pytest.mark.parametrize(
    "equations", [[], ["1+1="] * 1025, "1+1=", [1], [None], ["1" * 65], [["1+1="]]]
)
def test_a_bulk_body_of_another_form_is_422(plain, equations):
    response = plain.post("/predict/batch", json={"equations": equations})
    assert response.status_code == 422
    assert response.json()["detail"]


def test_a_422_does_not_grow_with_what_is_wrong(plain):
    """A body of less than a megabyte with 100,000 keys made an answer of nine."""
    wrong = {"equation": "1+1=", **{f"key{n}": n for n in range(50_000)}}
    response = plain.post("/predict", json=wrong)
    assert response.status_code == 422
    assert len(response.content) < 200_000
    assert response.json()["detail"][-1]["msg"] == f"and {50_000 - 1024} more"


def test_what_is_counted_stands_in_metrics():
    with client() as service:
        for body in (ASK, ASK, {"equation": "1+"}, {"equatoin": ""}):
            service.post("/predict", json=body)
        service.post("/predict/batch", json={"equations": ["1+1="] * 6})
        service.get("/nothing")
        service.get(f"/{'x' * 50}")
        text = service.get("/metrics").text
    for line in (
        'arithmetic_requests_total{outcome="answered",route="/predict"} 2.0',
        'arithmetic_requests_total{outcome="refused",route="/predict"} 2.0',
        'arithmetic_requests_total{outcome="answered",route="/predict/batch"} 1.0',
        'arithmetic_requests_total{outcome="refused",route="other"} 2.0',
        'arithmetic_request_seconds_count{route="/predict"} 4.0',
        'arithmetic_answers_total{operation="+",version="7"} 8.0',
        'arithmetic_refused_total{reason="no_equals_sign"} 1.0',
        'arithmetic_refused_total{reason="missing"} 1.0',
        'arithmetic_batch_size_count{operation="+"} 3.0',
        'arithmetic_queue_depth{operation="+"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert re.search(r'arithmetic_model_info{.*version="7".*} 1\.0', text)
    assert re.search(r"process_resident_memory_bytes [0-9]", text)


def test_every_route_is_described_with_its_errors(plain):
    described = json.loads(plain.get("/openapi.json").text)["paths"]
    for path in ("/predict", "/predict/batch"):
        assert {"200", "413", "415", "422", "429", "503", "504"} <= set(
            described[path]["post"]["responses"]
        )
    assert {"/livez", "/readyz", "/health", "/metrics"} <= set(described)


def test_past_the_queue_s_limit_a_call_is_refused_at_once_and_singles_go_on(tmp_path):
    """Eight calls of 1,024 at once where 1,024 may wait: some are shed, none waits for its turn."""
    body = json.dumps({"equations": ["951+11="] * 1024})
    with serving_process(tmp_path / "log", queue_limit=1024) as running:
        with ThreadPoolExecutor(8) as pool:
            calls = [
                pool.submit(running.ask, request(body, path="/predict/batch")) for _ in range(8)
            ]
            answers = [call.result() for call in calls]
        shed = [(headers, answer) for status, headers, answer in answers if status == 503]
        assert {status for status, _, _ in answers} == {200, 503}
        for headers, answer in shed:
            assert headers["retry-after"] == "1"
            assert "wait already" in json.loads(answer)["detail"]
        assert running.ask(question("1+1="))[0] == 200
        text = running.ask(request(None, path="/metrics"))[2].decode()
        label = 'arithmetic_requests_total{outcome="overloaded",route="/predict/batch"}'
        assert f"{label} {len(shed)}.0" in text


def test_past_the_most_connections_one_is_told_and_the_others_go_on(tmp_path):
    with serving_process(tmp_path / "log", max_connections=3) as running:
        held = [running.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(question("1+1="))
            assert read_response(connection)[0] == 200
        with running.connect() as one_more:
            status, headers, _ = read_response(one_more)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        for connection in held:
            connection.sendall(question("1+1="))
            assert read_response(connection)[0] == 200
            connection.close()
