"""The service follows its alias, and nothing that the registry does disturbs what it serves.

Real processes: `mlflow server`, the service, and a relay between them that fails on command.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from arithmetic import bundle
from arithmetic.engine import Engine
from arithmetic.grammar import Equation
from registry import MODEL
from scripts.tracking_server import tracking_server
from tests.faulty_network import Relay
from tests.following_fixtures import Service, Store, copied, scrambled, service

SWAPS = 20
CONNECTIONS = 8
QUESTIONS = [
    Equation(a, operation, b)
    for a in range(0, 1000, 97)
    for operation in "+-"
    for b in range(5, 1000, 83)
]


@dataclass(frozen=True)
class World:
    """Versions 1 and 2 answer exactly, 3 to 5 each wrongly in its own way and say so; 6 lies."""

    store: Store
    relay: Relay
    answers: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("following")
    store = Store(folder / "store")
    folders = [copied(folder / f"exact-{n}", n) for n in range(2)]
    folders += [scrambled(folder / f"scrambled-{n}", n, 0.15) for n in range(3)]
    for path in folders:
        store.register(path, errors=0 if "exact" in path.name else 2_000_000)
    store.register(scrambled(folder / "liar", 9, 0.15), errors=0)
    answers = {}
    for number, path in enumerate(folders, 1):
        given = Engine(path).answer(QUESTIONS)
        answers[str(number)] = {
            str(question): answer.text for question, answer in zip(QUESTIONS, given, strict=True)
        }
    with tracking_server(store.root) as url:
        relay = Relay(httpx.URL(url).port or 0)
        yield World(store, relay, answers)
        relay.close()


@pytest.fixture(autouse=True)
def production(world: World) -> None:
    """Every test begins with version 1 and a network that works."""
    world.relay.mode = "open"
    world.store.alias("1")


@pytest.fixture
def serving(world: World, tmp_path: Path) -> Iterator[Service]:
    # Versions that are often wrong are to stay, however many questions a fast machine asks them.
    settings = {"REGISTRY_TIMEOUT_SECONDS": "1", "ERROR_RATE_LIMIT": "1"}
    with service(tmp_path, world.relay.url, **settings) as running:
        running.serves("1")
        yield running


@dataclass(frozen=True)
class Given:
    """An answer as a client got it, and when it asked and got it."""

    equation: str
    status: int
    version: str
    answer: str
    asked: float
    got: float


async def load(url: str, stop: asyncio.Event) -> list[Given]:
    """Ask over several connections until told to stop."""
    given: list[Given] = []
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:

        async def ask_on(seed: int) -> None:
            drawn = random.Random(seed)
            while not stop.is_set():
                equation = str(drawn.choice(QUESTIONS))
                asked = time.monotonic()
                response = await client.post("/predict", json={"equation": equation})
                body = response.json()
                given.append(
                    Given(
                        equation,
                        response.status_code,
                        body.get("model_version", ""),
                        body.get("predicted_answer", ""),
                        asked,
                        time.monotonic(),
                    )
                )

        await asyncio.gather(*map(ask_on, range(CONNECTIONS)))
    return given


def test_through_promotions_and_rollbacks_under_load_nothing_fails(
    world: World, serving: Service
) -> None:
    """Every answer is 200, names a version that was Production then, and is that version's own."""
    moves = [(0.0, "1")]
    order = random.Random(1)

    async def promote_and_roll_back(stop: asyncio.Event) -> None:
        for _ in range(SWAPS):
            version = order.choice([n for n in world.answers if n != moves[-1][1]])
            moves.append((time.monotonic(), version))
            await asyncio.to_thread(world.store.alias, version)
            await asyncio.to_thread(serving.serves, version)
        stop.set()

    async def both() -> list[Given]:
        stop = asyncio.Event()
        given, _ = await asyncio.gather(load(serving.url, stop), promote_and_roll_back(stop))
        return given

    given = asyncio.run(both())
    assert len(given) > 100
    assert [one for one in given if one.status != 200] == []
    foreign = [one for one in given if one.answer != world.answers[one.version][str(one.equation)]]
    assert foreign == []
    # A move waits for the one before it to be served, so at any moment there are two candidates:
    # the version named last, and the one before it.
    for one in given:
        last = max(index for index, (moment, _) in enumerate(moves) if moment <= one.got)
        first = max(index for index, (moment, _) in enumerate(moves) if moment <= one.asked)
        possible = {version for _, version in moves[max(first - 1, 0) : last + 1]}
        assert one.version in possible, one
    answered_by = {one.version for one in given}
    assert len(answered_by) > 2
    print(f"\n{len(given)} answers, {SWAPS} swaps, 0 failed, by versions {sorted(answered_by)}")


def test_a_version_that_fails_the_self_test_is_never_served(world: World, serving: Service) -> None:
    """It says that it is exact and answers wrongly; its files are the registered ones."""
    world.store.alias("6")
    health = serving.until(lambda health: health["reason"] is not None)
    assert (health["status"], health["model_version"]) == ("ok", "1")
    assert "version 6 fails the self-test" in health["reason"]
    assert "version 6 fails the self-test" in serving.log.read_text()
    assert serving.ask("951+11=")["predicted_answer"] == "962"
    world.store.alias("2")
    assert serving.serves("2")["reason"] is None


def test_a_damaged_version_is_never_served_and_may_come_again_once_mended(
    world: World, serving: Service
) -> None:
    weights = world.store.files("2") / bundle.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    try:
        world.store.alias("2")
        health = serving.until(lambda health: health["reason"] is not None)
        assert health["model_version"] == "1"
        assert "was registered with digest" in health["reason"]
    finally:
        weights.write_bytes(whole)
    world.store.alias("1")
    serving.until(lambda health: health["reason"] is None)
    world.store.alias("2")
    serving.serves("2")


def test_a_number_never_changes(world: World, tmp_path: Path) -> None:
    with service(tmp_path, world.relay.url, MODEL_URI=f"models:/{MODEL}/2") as running:
        running.serves("2")
        world.store.alias("3")
        time.sleep(0.5)
        assert running.health()["model_version"] == "2"


@pytest.mark.parametrize("mode", ["closed", "silent", "wrong"])
def test_a_registry_that_is_lost_does_not_disturb_and_is_said(
    world: World, serving: Service, mode
) -> None:
    world.relay.mode = mode
    health = serving.until(lambda health: health["registry"].startswith("unreachable since 20"))
    assert (health["status"], health["model_version"]) == ("ok", "1")
    assert health["reason"]
    world.store.alias("2")
    assert serving.ask("951+11=")["model_version"] == "1"
    world.relay.mode = "open"
    health = serving.serves("2")
    assert health["registry"].startswith("reachable since 20")
    assert health["reason"] is None


def test_a_rollback_is_tried_again_once_the_registry_is_back(world: World, tmp_path: Path) -> None:
    """The version is found wrong while nobody can be told."""
    settings = {"REGISTRY_TIMEOUT_SECONDS": "1", "ERROR_RATE_MINIMUM": "50", "OPERATOR_TOKEN": "x"}
    with service(tmp_path, world.relay.url, **settings) as running:
        running.serves("1")
        world.store.alias("3")
        running.serves("3")
        world.relay.mode = "closed"
        running.until(lambda health: health["registry"].startswith("unreachable"))
        running.ask_many(100)
        health = running.serves("1")
        assert health["source"] == "disk"
        world.relay.mode = "open"
        running.until(lambda health: health["source"] == "registry")
        assert running.health()["model_version"] == "1"
    assert world.store.aliased() == "1"


def test_an_alias_that_is_deleted_is_said_and_what_is_served_stays(
    world: World, serving: Service
) -> None:
    world.store.client.delete_registered_model_alias(MODEL, "Production")
    health = serving.until(lambda health: health["reason"] is not None)
    assert "has no version with the alias 'Production'" in health["reason"]
    assert (health["status"], health["model_version"]) == ("ok", "1")


def test_a_restart_without_the_registry_starts_from_the_disk(world: World, tmp_path: Path) -> None:
    """The last version that passed, its digest checked again, and /health says where it is from."""
    with service(tmp_path, world.relay.url) as running:
        running.serves("1")
        world.store.alias("2")
        running.serves("2")
    world.relay.mode = "closed"
    with service(tmp_path, world.relay.url) as running:
        health = running.serves("2")
        assert health["source"] == "disk"
        assert health["registry"].startswith("unreachable since")
        assert running.ask("951+11=")["predicted_answer"] == "962"
        world.relay.mode = "open"
        running.until(lambda health: health["source"] == "registry")
    world.relay.mode = "closed"
    with service(tmp_path, world.relay.url, START_FROM_DISK="false") as running:
        health = running.until(lambda health: health["status"] == "unavailable")
        assert health["model_loaded"] is False
    newest = next((tmp_path / "cache").glob(f"{MODEL}-2-*"))
    (newest / bundle.decoder("+")).write_bytes(b"flipped")
    with service(tmp_path, world.relay.url) as running:
        assert running.serves("1")["source"] == "disk", "the damaged one is passed over"


def test_a_registry_that_names_nothing_is_believed_at_a_start(world: World, tmp_path: Path) -> None:
    with service(tmp_path, world.relay.url) as running:
        running.serves("1")
    world.store.client.delete_registered_model_alias(MODEL, "Production")
    with service(tmp_path, world.relay.url) as running:
        health = running.until(lambda health: health["reason"] is not None)
        assert health["model_loaded"] is False
