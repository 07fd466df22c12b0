"""Versions tried on real questions, and taken out of service when they are too often wrong.

Real processes: `mlflow server`, services, and bundles whose graphs were scrambled.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from mlflow import MlflowClient

from arithmetic.engine import Engine
from arithmetic.errors import RegistryProblem
from arithmetic.grammar import Equation, Grammar, solve
from registry import ALIAS, CANDIDATE, MODEL, store
from registry.errors import PromotionRefused
from registry.history import TAG
from registry.promote import promote
from registry.record import record
from registry.shadow import ShadowDemand, complaint
from scripts.tracking_server import tracking_server
from serving.candidate import knows_all, lacking
from serving.remembered import Memory
from serving.served import Served
from tests import registry_fixtures
from tests.following_fixtures import REPOSITORY, Store, copied, scrambled, service

TRIED = {"MODEL_URI_CANDIDATE": f"models:/{MODEL}@{CANDIDATE}", "ERROR_RATE_MINIMUM": "50"}
KEEP = {"ERROR_RATE_LIMIT": "1"}  # nothing is taken out


@dataclass(frozen=True)
class World:
    """Versions 1 and 2 answer exactly; 3 and 4 are often wrong and admit it, so they pass
    self-tests."""

    store: Store
    url: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("candidate")
    store = Store(folder / "store")
    store.register(copied(folder / "1", 1))
    store.register(copied(folder / "2", 2))
    for number in (3, 4):
        store.register(scrambled(folder / str(number), number, 0.15), errors=2_000_000)
    with tracking_server(store.root) as url:
        yield World(store, url)


@pytest.fixture(autouse=True)
def aliases(world: World) -> None:
    """Every test begins with Production at version 1 and no candidate."""
    world.store.alias("1")
    world.store.client.delete_registered_model_alias(MODEL, CANDIDATE)
    world.store.client.delete_registered_model_tag(MODEL, TAG)


def checked(health: dict, count: int) -> bool:
    """Whether the candidate has so many answers judged."""
    accuracy = health["candidate"]["accuracy"]
    return accuracy is not None and accuracy["checked"] >= count


def tried(health: dict) -> str | None:
    version: str | None = health["candidate"]["model_version"]
    return version


def refusal(world: World, version: str, wanted: ShadowDemand) -> str:
    """Why `make promote` says no; these versions were registered without a certificate."""
    shutil.copy(REPOSITORY / "params.yaml", world.store.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(PromotionRefused) as refused:
            promote(version, world.store.root, shadow=wanted)
    return str(refused.value)


def test_a_shadow_answers_copies_and_nobody_sees_them(world: World, tmp_path: Path) -> None:
    """Its errors are counted, Production's answers are given, and promote can ask for it."""
    world.store.alias("3", CANDIDATE)
    tags = {
        number: world.store.client.get_model_version(MODEL, number).tags for number in ("2", "3")
    }
    with service(tmp_path, world.url, **TRIED, **KEEP) as running:
        running.until(lambda health: tried(health) == "3")
        answers = running.ask_many(150)
        assert {answer["model_version"] for answer in answers} == {"1"}
        health = running.until(lambda health: checked(health, 150))
        candidate = health["candidate"]
        assert (candidate["mode"], candidate["not_copied"]) == ("shadow", 0)
        assert candidate["accuracy"]["error_rate"] > 0.1
        assert candidate["accuracy"]["call_ms"] > 0
        assert candidate["production_call_ms"] > 0
        assert (health["accuracy"]["checked"], health["accuracy"]["wrong"]) == (150, 0)
        metrics = running.metrics()
        assert 'arithmetic_shadow_questions_total{outcome="copied",version="3"} 150' in metrics
        assert 'arithmetic_wrong_total{operation="+",version="3"}' in metrics
        assert 'arithmetic_wrong_total{operation="+",version="1"}' not in metrics

        wanted = ShadowDemand(running.url, 100)
        assert "questions wrongly" in (complaint(wanted, "3", tags["3"]) or "")
        assert "tries version 3 and not 2" in (complaint(wanted, "2", tags["2"]) or "")
        world.store.alias("2", CANDIDATE)
        running.until(lambda health: tried(health) == "2")
        assert "has 0 clean answers and 100" in (complaint(wanted, "2", tags["2"]) or "")
        assert "has 0 clean answers and 100 are demanded" in refusal(world, "2", wanted)
        running.ask_many(100)
        running.until(lambda health: checked(health, 100))
        assert complaint(wanted, "2", tags["2"]) is None
        assert "has no certificate" in refusal(world, "2", wanted)
        assert "shadow" not in refusal(world, "2", wanted)

        world.store.client.delete_registered_model_alias(MODEL, CANDIDATE)
        running.until(lambda health: tried(health) is None)
    assert "does not answer" in (complaint(wanted, "2", tags["2"]) or "")


def test_a_canary_answers_its_share_and_is_taken_out(world: World, tmp_path: Path) -> None:
    """Its answers carry its version; once it is out, all of them are Production's again."""
    world.store.alias("2", CANDIDATE)
    canary = {**TRIED, "CANDIDATE_MODE": "canary", "CANDIDATE_SHARE": "0.25"}
    with service(tmp_path, world.url, **canary) as running:
        running.until(lambda health: tried(health) == "2")
        versions = [answer["model_version"] for answer in running.ask_many(100)]
        assert (versions.count("1"), versions.count("2")) == (75, 25)
        # Remembered, so that nobody deletes its files while it is tried.
        uri = TRIED["MODEL_URI_CANDIDATE"]
        remembered = Memory(tmp_path / "cache", uri, world.url).entries()
        assert [one.version for one in remembered] == ["2"]
        world.store.alias("3", CANDIDATE)
        running.until(lambda health: tried(health) == "3")
        for seed in range(20):
            running.ask_many(50, seed)
            if tried(health := running.health()) is None:
                break
        assert "of its latest 50 different questions wrongly" in health["candidate"]["reason"]
        assert {answer["model_version"] for answer in running.ask_many(50)} == {"1"}
        assert world.store.aliased() == "1"
        assert 'arithmetic_withdrawn_total{version="3"} 1.0' in running.metrics()


def test_a_canary_that_does_not_know_every_question_has_no_turn() -> None:
    """Asked at each turn: Production may come, or move on, after the candidate was loaded."""

    def version(number: str, operations: tuple[str, ...], largest: int) -> Served:
        grammar = Grammar(operations, largest)
        return SimpleNamespace(version=number, grammar=grammar)  # type: ignore[return-value]

    two, four = version("1", ("+", "-"), 999), version("2", ("+", "-", "*", "/"), 999)
    assert knows_all(four, two)
    assert knows_all(two, two)
    assert not knows_all(two, four)
    assert not knows_all(version("3", ("+", "-"), 99), two)
    assert "version 1 does not know every question" in lacking(two)


def test_a_version_too_often_wrong_is_taken_out_of_service(world: World, tmp_path: Path) -> None:
    """The one before takes over from the disk, and the alias may move on."""
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50") as running:
        running.serves("1")
        world.store.alias("3")
        running.serves("3")
        for seed in range(20):
            running.ask_many(50, seed)
            if running.health()["model_version"] != "3":
                break
        health = running.health()
        assert (health["status"], health["model_version"]) == ("ok", "1")
        assert health["source"] == "disk"
        assert "of its latest 50 different questions wrongly" in health["reason"]
        assert list(health["refused"]) == ["3"]
        assert 'arithmetic_withdrawn_total{version="3"} 1.0' in running.metrics()
        assert "taken out of service: version 3" in running.log.read_text()
        assert "no operator is set" in running.log.read_text()
        assert world.store.aliased() == "3", "the service may not write"
        world.store.alias("2")
        assert running.serves("2")["refused"] == {}
        kept = (tmp_path / "cache" / "hard-cases.jsonl").read_text()
        assert kept.count('"version": "3"') == kept.count("\n") > 10


def test_a_version_that_was_taken_out_stays_out_after_a_restart(
    world: World, tmp_path: Path
) -> None:
    """Until the alias has named another one; a crash loop must not bring it back each time."""
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50") as running:
        running.serves("1")
        world.store.alias("3")
        running.serves("3")
        running.ask_many(100)
        running.serves("1")
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50") as running:
        health = running.serves("1")
        assert health["source"] == "disk"
        assert "of its latest 50 different questions wrongly" in health["reason"]
        world.store.alias("2")
        running.serves("2")
        world.store.alias("3")
        running.serves("3")
        running.ask_many(100)
        running.serves("2")
        (noted,) = (tmp_path / "cache").glob("withdrawn-*.json")
        noted.unlink()  # as docs/operations.md says, to try it again at once
        running.serves("3")


def test_a_version_that_was_taken_out_is_never_fallen_back_on(world: World, tmp_path: Path) -> None:
    """Not when the next one is taken out too, nor after a restart without a registry."""
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50") as running:
        for bad in ("3", "4"):
            world.store.alias("1")
            running.until(
                lambda health: (health["model_version"], health["source"]) == ("1", "registry")
            )
            world.store.alias(bad)
            running.serves(bad)
            running.ask_many(100)
            health = running.until(lambda health: health["source"] == "disk")
            assert health["model_version"] == "1"
    (notes,) = (tmp_path / "cache").glob("verified-*.json")
    assert [one["version"] for one in json.loads(notes.read_text())] == ["1"]


def test_a_production_that_was_taken_out_is_no_canary_either(world: World, tmp_path: Path) -> None:
    """Where both aliases name one version."""
    canary = {**TRIED, "CANDIDATE_MODE": "canary", "CANDIDATE_SHARE": "0.2"}
    with service(tmp_path, world.url, **canary) as running:
        running.serves("1")
        world.store.alias("3", CANDIDATE)
        world.store.alias("3")
        running.until(lambda health: health["model_version"] == tried(health) == "3")
        running.ask_many(100)
        running.until(lambda health: health["model_version"] == "1")
        running.until(lambda health: tried(health) is None)
        assert {answer["model_version"] for answer in running.ask_many(50)} == {"1"}


def seen(url: str, count: int = 24) -> set[str | None]:
    """What /health says of the version, over so many connections: of several workers, all."""
    return {httpx.get(f"{url}/health").json()["model_version"] for _ in range(count)}


@pytest.mark.parametrize("operator", [False, True])
def test_several_workers_follow_and_withdraw_as_one(
    world: World, tmp_path: Path, operator: bool
) -> None:
    """One has seen enough wrong answers; all stop. With an operator, the alias goes back too."""
    settings = {"WORKERS": "2", "ERROR_RATE_MINIMUM": "50"}
    if operator:
        settings["OPERATOR_TOKEN"] = "x"
    with service(tmp_path, world.url, **settings) as running:
        for version in ("1", "2", "1", "3"):
            world.store.alias(version)
            wanted = {version}
            running.until(lambda _: seen(running.url) == wanted)  # noqa: B023  # asked at once
        running.ask_many(60)  # over one connection, so one worker answers all of them
        running.until(lambda _: seen(running.url) == {"1"})
        running.until(lambda _: "withdrawn by another process" in running.log.read_text())
        assert running.log.read_text().count("taken out of service: version 3") == 1
        assert 'arithmetic_withdrawn_total{version="3"} 1.0' in running.metrics()
        if operator:
            running.until(lambda _: world.store.aliased() == "1")
        else:
            assert world.store.aliased() == "3"


def test_an_operator_goes_back_by_the_history(world: World, tmp_path: Path) -> None:
    """A service whose disk knows only an old version does not take everybody back to that."""
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50", OPERATOR_TOKEN="x") as running:
        running.serves("1")
        world.store.client.set_registered_model_tag(
            MODEL, TAG, '{"current": "3", "earlier": ["1", "2"]}'
        )
        world.store.alias("3")
        running.serves("3")
        running.ask_many(100)
        running.serves("2")
    assert world.store.aliased() == "2"
    history = world.store.client.get_registered_model(MODEL).tags[TAG]
    assert history == '{"current": "2", "earlier": ["1"]}'


def test_an_operator_s_service_rolls_the_alias_back(world: World, tmp_path: Path) -> None:
    """With the tags and the history that `make rollback` would have left."""
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50", OPERATOR_TOKEN="x") as running:
        running.serves("1")
        world.store.alias("3")
        running.serves("3")
        running.ask_many(100)
        health = running.until(
            lambda health: health["model_version"] == "1" and health["source"] == "registry"
        )
        assert health["reason"] is None
    assert world.store.aliased() == "1"
    bad, good = (world.store.client.get_model_version(MODEL, n).tags for n in ("3", "1"))
    assert "different questions wrongly" in bad["rolled_back_reason"]
    assert bad["rolled_back_by"].startswith("arithmetic-lm service on ")
    assert (good["restored_from"], good["restored_reason"]) == ("3", bad["rolled_back_reason"])
    history = world.store.client.get_registered_model(MODEL).tags[TAG]
    assert '"current": "1"' in history


def test_a_service_that_may_only_read_has_an_operator_who_may_write(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against MLflow's own basic-auth: reading follows the alias, only the operator moves it."""
    admin, reader = ("admin", "of the admin, 12+"), ("service", "of the service, 12+")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", admin[1])
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "of these tests")
    with tracking_server(world.store.root, app="basic-auth") as url:
        made = httpx.post(
            f"{url}/api/2.0/mlflow/users/create",
            json={"username": reader[0], "password": reader[1]},
            auth=admin,
        )
        assert made.is_success, made.text
        with service(tmp_path, url) as running:
            health = running.until(lambda health: health["reason"] is not None)
            assert "MLFLOW_TRACKING_USERNAME" in health["reason"]

        reads = {"MLFLOW_TRACKING_USERNAME": reader[0], "MLFLOW_TRACKING_PASSWORD": reader[1]}
        settings = {**reads, "ERROR_RATE_MINIMUM": "50"}
        for number, (who, moves) in enumerate(((reader, False), (admin, True))):
            world.store.alias("1")
            operator = {"OPERATOR_USERNAME": who[0], "OPERATOR_PASSWORD": who[1]}
            with service(tmp_path / str(number), url, **settings, **operator) as running:
                running.serves("1")
                world.store.alias("3")
                running.serves("3")
                running.ask_many(60)
                running.serves("1")
                said = "rolled Production back" if moves else "refuses the operator with status 403"
                running.until(lambda _: said in running.log.read_text())  # noqa: B023
            assert world.store.aliased() == ("1" if moves else "3")


def test_with_nothing_to_fall_back_on_it_says_503_and_why(world: World, tmp_path: Path) -> None:
    world.store.alias("3")
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50") as running:
        running.serves("3")
        running.ask_many(50)
        health = running.until(lambda health: not health["model_loaded"])
        assert "different questions wrongly" in health["reason"]
        assert running.http.post("/predict", json={"equation": "1+1="}).status_code == 503
        world.store.alias("2")
        running.serves("2")


def test_a_number_stays_whatever_it_answers(world: World, tmp_path: Path) -> None:
    uri = f"models:/{MODEL}/3"
    with service(tmp_path, world.url, ERROR_RATE_MINIMUM="50", MODEL_URI=uri) as running:
        running.serves("3")
        running.ask_many(100)
        health = running.until(lambda health: health["reason"] is not None)
        assert (health["model_version"], health["status"]) == ("3", "ok")
        assert "names it by its number" in running.log.read_text()
    assert world.store.aliased(ALIAS) == "1"


def store_of(root: Path) -> MlflowClient:
    return MlflowClient(store.default_uri(root))


def test_a_version_with_its_clean_shadow_answers_is_promoted(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded, tried as a shadow, promoted by what it answered there, and then served."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = registry_fixtures.fresh(pipeline, tmp_path)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promote"] = {"max_errors": 200}  # the small model answers half of its equations
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    assert record(root).version == "1"
    registry_fixtures.another_model(root)
    assert record(root).version == "2"
    promote("1", root)
    store_of(root).set_registered_model_alias(MODEL, CANDIDATE, "2")

    engine = Engine(root / "bundle")
    small = [Equation(a, operation, b) for operation in "+-" for a in range(10) for b in range(10)]
    right = [
        question
        for question, answer in zip(small, engine.answer(small), strict=True)
        if answer.text == solve(question)
    ]
    assert len(right) > 40
    with tracking_server(root) as url, service(tmp_path, url, **TRIED, **KEEP) as running:
        running.until(lambda health: tried(health) == "2")
        demand = ShadowDemand(running.url, 40)
        for question in right[:39]:
            running.ask(str(question))
        running.until(lambda health: checked(health, 39))
        with pytest.raises(PromotionRefused, match="has 39 clean answers and 40 are demanded"):
            promote("2", root, shadow=demand)
        running.ask(str(right[39]))
        running.until(lambda health: checked(health, 40))
        assert promote("2", root, shadow=demand).changed
        running.serves("2")
        health = running.until(lambda health: health["candidate"]["reason"] is not None)
        assert health["candidate"]["reason"] == "version 2 is Production already"


@pytest.mark.parametrize(("url", "answers"), [("http://127.0.0.1:1", 0), ("localhost", 5), ("", 5)])
def test_half_a_demand_is_refused(url: str, answers: int) -> None:
    with pytest.raises(RegistryProblem, match="give both"):
        ShadowDemand(url, answers)
