"""The middleware: request ids, keys, body limit, counts, log lines."""

import hashlib
import json
import logging

QUESTION = {"equation": "1+1="}


def entry(name: str, key: str) -> str:
    return f"{name}={hashlib.sha256(key.encode()).hexdigest()}"


def test_request_ids_are_the_clients_or_new_ones(client):
    own = client.post("/predict", json=QUESTION, headers={"X-Request-ID": "abc/1.2:3"})
    assert own.headers["X-Request-ID"] == "abc/1.2:3"
    strange = client.get("/livez", headers={"X-Request-ID": "a b"})
    ids = {strange.headers["X-Request-ID"], client.get("/livez").headers["X-Request-ID"]}
    assert len(ids) == 2
    assert "a b" not in ids


def test_keys_open_the_service_and_probes_need_none(start_service):
    client = start_service(api_keys=f"{entry('one', 'first')}, {entry('two', 'second')}")
    for headers in (
        {"Authorization": "Bearer first"},
        {"Authorization": "bearer second"},
        {"X-API-Key": "second"},
    ):
        assert client.post("/predict", json=QUESTION, headers=headers).status_code == 200
    for headers in ({}, {"X-API-Key": "third"}, {"Authorization": "Basic first"}):
        for method, path in (("POST", "/predict"), ("GET", "/metrics"), ("GET", "/docs")):
            response = client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert "API key" in response.json()["detail"]
    for path in ("/livez", "/readyz", "/health", "/ping", "/v2/health/ready", "/"):
        assert client.get(path).status_code == 200
    assert client.get("/healthx").status_code == 401
    rejected = client.get("/metrics", headers={"X-API-Key": "first"}).text
    assert 'outcome="unauthorized",route="other"} 10.0' in rejected


def test_a_body_of_the_largest_size_is_read_and_a_larger_one_is_413_in_json(start_service):
    client = start_service(max_body_bytes=1024)
    headers = {"Content-Type": "application/json"}
    for path in ("/predict", "/predict/batch", "/invocations", "/livez"):
        response = client.post(path, content=b" " * 1025, headers=headers)
        assert (response.status_code, list(response.json())) == (413, ["detail"])
        response = client.post(path, content=iter([b" " * 600] * 2), headers=headers)  # chunked
        assert response.status_code == (405 if path == "/livez" else 413)
    body = json.dumps(QUESTION).encode().ljust(1024)
    for content in (body, iter([body[:500], body[500:]])):
        assert client.post("/predict", content=content, headers=headers).status_code == 200


def test_requests_are_counted_by_declared_route_and_outcome(client):
    client.post("/predict", json=QUESTION)
    client.post("/predict", json={"equation": "x"})
    client.get("/whatever")
    client.get("/v2/models/exact/versions/9/ready")
    text = client.get("/metrics").text
    for labels in (
        'outcome="answered",route="/predict"',
        'outcome="rejected",route="/predict"',
        'outcome="rejected",route="other"',
        'outcome="rejected",route="/v2/models/{name}/versions/{version}/ready"',
    ):
        assert f"arithmetic_requests_total{{{labels}}} 1.0" in text
    assert "whatever" not in text


def test_sampled_requests_and_all_server_errors_have_a_log_record(start_service, tmp_path, caplog):
    caplog.set_level(logging.INFO, "serving.requests")
    start_service(log_sample=0).post("/predict", json=QUESTION)
    assert not [r for r in caplog.records if r.name == "serving.requests"]
    client = start_service(model_uri=str(tmp_path / "missing"), log_sample=0)
    client.post("/predict", json=QUESTION)
    (record,) = (r for r in caplog.records if r.name == "serving.requests")
    assert (record.status, record.outcome) == (503, "unavailable")
    caplog.clear()
    client = start_service(log_sample=1)
    client.post("/predict", json=QUESTION, headers={"X-Request-ID": "id-1"})
    client.head("/livez")
    first, second = (r for r in caplog.records if r.name == "serving.requests")
    assert (first.route, first.status, first.outcome) == ("/predict", 200, "answered")
    assert (first.request_id, first.model_version) == ("id-1", "local")
    assert (second.method, second.route) == ("HEAD", "/livez")
