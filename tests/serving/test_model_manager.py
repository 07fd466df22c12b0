"""ModelManager: follow the alias, swap, retry, reject, start without a registry."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from arithmetic.grammar import Equation, Grammar
from benchmarks.serving_process import let_raise
from serving.loaded_model import self_test_equations
from tests.serving.conftest import StartService, wait_until
from tests.serving.folder_registry import FolderRegistry
from tests.serving.model_directories import make_model, wrong_where

URI = "models:/arithmetic-lm@Production"


def health(client) -> dict:
    return client.get("/health").json()


def version(client) -> str | None:
    return health(client)["model_version"]


def predict(client, equation="1+1=") -> dict:
    response = client.post("/predict", json={"equation": equation})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def follow(start_service: StartService):
    """Return a function that starts a service on Production of a registry."""

    def start(registry: FolderRegistry, **settings):
        return start_service(registry, model_uri=URI, **{"poll_seconds": 0.05, **settings})

    return start


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> list[Path]:
    """Return three exact models with different digests."""
    root = tmp_path_factory.mktemp("versions")
    return [make_model(root / str(seed), seed=seed) for seed in range(3)]


@pytest.fixture(scope="session")
def often_wrong(tmp_path_factory) -> Path:
    """Return a model that is wrong on a quarter of the questions, but on none of the self-test."""
    tested = {(e.operand_1, e.operand_2) for e in self_test_equations(Grammar(("+", "-"), 99))}

    def is_wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        is_tested = np.array([pair in tested for pair in zip(a.tolist(), b.tolist(), strict=True)])
        return ((a + b) % 4 == 0) & ~is_tested

    return make_model(tmp_path_factory.mktemp("wrong") / "model", corrupt=wrong_where(is_wrong))


def state(tmp_path: Path) -> dict:
    (file,) = (tmp_path / "cache").glob("*/state.json")
    return json.loads(file.read_text())


def test_a_moved_alias_is_followed_without_a_failed_request(follow, models, tmp_path):
    registry = FolderRegistry(*models)
    client = follow(registry)
    assert predict(client)["model_version"] == "1"
    assert health(client)["source"] == "registry"
    for number in ("2", "3", "1"):
        registry.production = number
        wait_until(lambda: predict(client)["model_version"] == registry.production, 3)
    info = [line for line in client.get("/metrics").text.splitlines() if "model_info{" in line]
    assert len(info) == 1  # the served version's
    wait_until(lambda: len(list((tmp_path / "cache").glob("*/arithmetic-lm-*"))) == 2)
    assert [entry["version"] for entry in state(tmp_path)["known_good"].values()] == ["3", "1"]


def test_a_numbered_version_is_looked_up_once(start_service, models):
    registry = FolderRegistry(*models)
    client = start_service(registry, model_uri="models:/arithmetic-lm/2", poll_seconds=0.02)
    assert version(client) == "2"
    registry.is_up = False
    time.sleep(0.2)
    assert health(client)["registry"].startswith("reachable")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("is_up", False, "no answer from the registry"),
        ("production", None, "no version has the alias"),
        ("resolve", None, "polling failed"),
    ],
    ids=["unreachable", "alias deleted", "a bug"],
)
def test_a_failing_registry_leaves_the_model_in_service(
    follow, models, monkeypatch, attribute, value, reason
):
    registry = FolderRegistry(*models)
    client = follow(registry)
    with monkeypatch.context() as patch:
        patch.setattr(registry, attribute, value)
        wait_until(lambda: reason in str(health(client)["reason"]))
        assert predict(client)["model_version"] == "1"
        if attribute == "is_up":
            assert health(client)["registry"].startswith("unreachable")
            assert "arithmetic_registry_up 0.0" in client.get("/metrics").text
    registry.production = "2"
    wait_until(lambda: version(client) == "2" and health(client)["reason"] is None)


def test_it_starts_from_the_last_known_good_version(follow, models):
    registry = FolderRegistry(*models)
    registry.production = "2"
    assert version(follow(registry)) == "2"
    registry.is_up = False
    client = follow(registry)
    report = health(client)
    assert (report["model_version"], report["source"]) == ("2", "last_known_good")
    assert report["registry"].startswith("unreachable")
    assert predict(client)["model_version"] == "2"
    registry.is_up = True
    wait_until(lambda: health(client)["source"] == "registry")
    assert registry.downloads == ["2"]


def test_it_starts_from_an_earlier_one_if_the_latest_is_damaged(follow, models, tmp_path):
    registry = FolderRegistry(*models)
    client = follow(registry)
    registry.production = "2"
    wait_until(lambda: version(client) == "2")
    (weights,) = (tmp_path / "cache").glob("*/arithmetic-lm-2-*/model.safetensors")
    weights.write_bytes(b"damaged")
    registry.is_up = False
    assert version(follow(registry)) == "1"


def test_with_nothing_on_disk_it_waits_and_then_serves(follow, models):
    registry = FolderRegistry(*models)
    registry.is_up = False
    client = follow(registry)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "reason": "no answer from the registry"}
    registry.is_up = True
    wait_until(lambda: client.get("/readyz").status_code == 200)


def test_a_registry_without_a_version_starts_nothing_from_disk(follow, models):
    registry = FolderRegistry(*models)
    follow(registry)
    registry.production = None
    client = follow(registry)
    assert health(client)["model_loaded"] is False


def test_a_damaged_version_is_not_served_and_is_retried_with_back_off(follow, models, tmp_path):
    damaged = make_model(tmp_path / "damaged", seed=9)
    registry = FolderRegistry(models[0], damaged)
    config = (damaged / "config.json").read_bytes()
    (damaged / "config.json").write_bytes(config + b" ")
    client = follow(registry)
    registry.production = "2"
    wait_until(lambda: health(client)["rejected"])
    assert "digest" in health(client)["rejected"]["2"]
    assert predict(client)["model_version"] == "1"
    time.sleep(0.6)
    attempts = registry.downloads.count("2")
    assert 2 <= attempts <= 4  # after 0.1, 0.3, 0.7 s; without back-off there were twelve
    failures = f'arithmetic_model_load_failures_total{{version="2"}} {attempts}.0'
    assert failures in client.get("/metrics").text
    (damaged / "config.json").write_bytes(config)  # repaired: the next attempt serves it
    wait_until(lambda: version(client) == "2")
    assert health(client)["rejected"] == {}


def test_a_version_that_fails_the_self_test_is_not_served(follow, models, tmp_path):
    wrong = make_model(tmp_path / "wrong", corrupt=wrong_where(lambda a, b: a >= 0))
    raising = make_model(tmp_path / "raising")
    let_raise(raising, Equation(99, "+", 99))
    registry = FolderRegistry(models[0], wrong, raising)
    client = follow(registry)
    for number, reason in (("2", "self-test failed"), ("3", "out of data bounds")):
        registry.production = number
        wait_until(lambda: health(client)["rejected"].keys() == {registry.production})
        assert reason in health(client)["rejected"][number]
        assert predict(client)["model_version"] == "1"


def ask_many(client, first: int) -> None:
    texts = [f"{a}+{b}=" for a in range(first, first + 12) for b in range(20, 90)]
    response = client.post("/predict/batch", json={"equations": texts})
    assert response.status_code == 200


def test_a_version_that_is_wrong_too_often_is_rejected_and_the_previous_one_serves(
    follow, models, often_wrong, tmp_path
):
    registry = FolderRegistry(models[0], often_wrong, models[2])
    client = follow(registry, max_error_rate=0.1)
    registry.production = "2"
    wait_until(lambda: version(client) == "2")
    ask_many(client, 25)
    wait_until(lambda: version(client) == "1")
    report = health(client)
    assert report["source"] == "last_known_good"
    assert "distinct questions wrongly" in report["rejected"]["2"]
    assert report["reason"] == report["rejected"]["2"]
    assert 'arithmetic_model_rejected_total{version="2"} 1.0' in client.get("/metrics").text
    time.sleep(0.2)
    assert version(client) == "1"
    assert version(follow(registry, max_error_rate=0.1)) == "1"  # also after a restart
    registry.production = "3"
    wait_until(lambda: version(client) == "3")
    assert health(client)["rejected"] == {}
    assert state(tmp_path)["rejected"] == {}


def test_with_no_earlier_version_a_rejected_one_leaves_nothing_in_service(follow, often_wrong):
    client = follow(FolderRegistry(often_wrong), max_error_rate=0.1)
    ask_many(client, 25)
    wait_until(lambda: client.get("/readyz").status_code == 503)
    assert "distinct questions" in client.get("/readyz").json()["reason"]


def test_a_version_named_by_its_number_stays(start_service, often_wrong):
    registry = FolderRegistry(often_wrong)
    client = start_service(registry, model_uri="models:/arithmetic-lm/1", max_error_rate=0.1)
    ask_many(client, 25)
    wait_until(lambda: health(client)["reason"])
    assert version(client) == "1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"known_good": []}', b"\xff"])
def test_a_damaged_state_file_does_not_keep_it_from_starting(follow, models, tmp_path, content):
    registry = FolderRegistry(*models)
    follow(registry)
    (file,) = (tmp_path / "cache").glob("*/state.json")
    file.write_bytes(content)
    assert version(follow(registry)) == "1"


def test_one_wrong_answer_repeated_rejects_nothing(follow, often_wrong):
    client = follow(FolderRegistry(often_wrong), max_error_rate=0.1)
    for _ in range(3):
        client.post("/predict/batch", json={"equations": ["22+34="] * 1000})
    wait_until(lambda: health(client)["accuracy"]["wrong"] == 3000)
    assert version(client) == "1"
