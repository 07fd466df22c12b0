"""The team's stack as it runs: users and what they may not do, restarts under load, kept data.

Upstream images are replaced by stand-ins (override.yaml); Grafana has none.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from benchmarks.restarts import PARTS, TEAM, Stack, run_stack
from registry import EXPERIMENT, MODEL_NAME, PRODUCTION
from registry.client import open_client
from registry.exceptions import RegistryError
from registry.promotion import promote
from registry.record import Recorded, record
from tests.docker_engine import require_engine
from tests.registry.project import make_project
from tests.serving.conftest import wait_until

EMPTY_PANELS = ("Wrong answers", "Failed requests", "Input drift (PSI)")  # nothing is wrong

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require_engine("docker-compose")
    with run_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@contextmanager
def user(stack: Stack, name: str) -> Iterator[None]:
    """Use MLflow as this user."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in stack.credentials(name).items():
            patch.setenv(variable, value)
        yield


@pytest.fixture(scope="module")
def versions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[Recorded]:
    """Register two versions as the registrar, and promote the first as the promoter."""
    folder = tmp_path_factory.mktemp("projects")
    with user(stack, "registrar"):
        recorded = [record(make_project(folder / f"{seed}", seed)) for seed in (1, 2)]
    with user(stack, "promoter"):
        promote("1", folder / "1")
    wait_until(lambda: stack.versions() == ["1", "1"], 60)
    return recorded


def test_the_replicas_swap_when_the_promoter_promotes(stack, versions, tmp_path):
    project = make_project(tmp_path / "project")  # holds the gate
    with user(stack, "promoter"):
        promote("2", project)
        wait_until(lambda: stack.versions() == ["2", "2"], 30)
        promote("1", project)
    wait_until(lambda: stack.versions() == ["1", "1"], 30)


REFUSED = [
    ("registrar", "set_registered_model_alias", MODEL_NAME, PRODUCTION, "2"),
    ("registrar", "delete_registered_model_alias", MODEL_NAME, PRODUCTION),
    ("registrar", "delete_model_version", MODEL_NAME, "1"),
    ("registrar", "rename_registered_model", MODEL_NAME, "other"),
    ("registrar", "set_registered_model_tag", MODEL_NAME, "mlflow.prompt.is_prompt", "true"),
    ("registrar", "delete_experiment", "1"),
    ("promoter", "create_run", "1"),
    ("promoter", "create_model_version", MODEL_NAME, "mlflow-artifacts:/1/models"),
    ("service", "create_registered_model", "another"),
    ("service", "create_experiment", "another"),
    ("service", "create_run", "1"),
    ("service", "set_model_version_tag", MODEL_NAME, "1", "errors", "0"),
]


@pytest.mark.parametrize(("name", "call", "arguments"), [(n, c, a) for n, c, *a in REFUSED])
def test_each_user_is_refused_what_it_may_not_do(stack, versions, name, call, arguments):
    with user(stack, name), pytest.raises(Exception, match=r"PERMISSION_DENIED|error code 403"):
        getattr(open_client(), call)(*arguments)


def test_the_registrar_may_not_promote(stack, versions, tmp_path):
    with user(stack, "registrar"), pytest.raises(RegistryError, match="only promoter"):
        promote("2", make_project(tmp_path / "project"))
    assert stack.versions() == ["1", "1"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/registered-models/alias",
        "/ajax-api/2.0/mlflow/registered-models/alias",
        "/api/2.0/mlflow//registered-models/alias/",
        "/api/2.0/mlflow/registered-models/%61lias",
        "/api/2.0/mlflow/registered-models/x/../alias",
        "/API/2.0/mlflow/Registered-Models/Alias",
    ],
)
def test_no_spelling_of_the_alias_endpoint_is_open_to_the_registrar(stack, versions, path):
    body = {"name": MODEL_NAME, "alias": PRODUCTION, "version": "2"}
    auth = "registrar", stack.secrets["REGISTRAR_PASSWORD"]
    with httpx.Client(trust_env=False, auth=auth) as client:
        for method in ("POST", "DELETE", "PATCH"):
            url = httpx.URL(stack.address("TRACKING_PORT")).copy_with(raw_path=path.encode())
            assert client.request(method, url, json=body).status_code == 403


def test_nobody_enters_without_a_password_or_by_another_host(stack, versions):
    url = f"{stack.address('TRACKING_PORT')}/api/2.0/mlflow/registered-models/search"
    admin = ("admin", stack.secrets["ADMIN_PASSWORD"])
    with httpx.Client(trust_env=False) as client:
        assert client.get(url).status_code == 401
        assert client.get(url, auth=("admin", "password1234")).status_code == 401
        assert client.get(url, auth=admin).status_code == 200
        other = client.get(url, auth=admin, headers={"Host": "rebound.example"})
        assert (other.status_code, "Host" in other.text) == (403, True)


@pytest.mark.parametrize("name", PARTS)
def test_a_restart_under_load_loses_nothing(stack, versions, tmp_path, name):
    with stack.load().running(1) as loops:
        time.sleep(1)
        stack.restart(name)
        time.sleep(1)
    assert loops.counts[200] >= 10
    assert (loops.counts["wrong"], loops.answers) == (0, loops.counts[200]), loops.counts
    assert loops.failures == 0 or name == "nginx", loops.counts
    wait_until(lambda: stack.versions() == ["1", "1"], 60)
    with user(stack, "registrar"):  # no version is lost, no connection stays broken
        known = open_client().search_model_versions(f"name = '{MODEL_NAME}'")
    assert {str(version.version) for version in known} >= {"1", "2"}


def test_the_registry_keeps_a_registration_after_a_restart_in_between(stack, versions, tmp_path):
    project = make_project(tmp_path / "project", seed=3)
    with user(stack, "registrar"):
        restart = threading.Thread(target=stack.compose, args=("restart", "mlflow"))
        restart.start()
        with suppress(RegistryError):
            record(project)
        restart.join()
        stack.wait_until_healthy("mlflow")
        again = record(project)
        client = open_client()
        (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
        runs = client.search_runs([experiment.experiment_id])
        known = client.search_model_versions(f"name = '{MODEL_NAME}'")
    assert again.version in {str(version.version) for version in known}
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 3
    assert len(known) == 3


def test_prometheus_scrapes_both_and_answers_the_dashboard(stack, versions):
    stack.compose("--profile", "monitoring", "up", "--detach", "prometheus")
    source = stack.address("PROMETHEUS_PORT")
    with httpx.Client(trust_env=False) as client, stack.load().running(1):

        def up() -> list[str]:
            answer = client.get(f"{source}/api/v1/query", params={"query": "up == 1"}).json()
            return sorted(series["metric"]["instance"] for series in answer["data"]["result"])

        wait_until(lambda: up() == ["service-1:8000", "service-2:8000"], 60)
        time.sleep(25)  # rates need two scrapes
        panels = json.loads((TEAM / "grafana" / "dashboard.json").read_text())["panels"]
        for panel in panels:
            for target in panel["targets"]:
                query = {"query": target["expr"]}
                answer = client.get(f"{source}/api/v1/query", params=query).json()
                assert answer["status"] == "success", target
                assert answer["data"]["result"] or panel["title"] in EMPTY_PANELS, target
        rules = client.get(f"{source}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_down_keeps_the_data(stack, versions):
    stack.compose("--profile", "monitoring", "down")
    stack.compose("up", "--detach")
    wait_until(lambda: stack.versions() == ["1", "1"], 60)
    with user(stack, "registrar"):
        known = open_client().search_model_versions(f"name = '{MODEL_NAME}'")
    assert {"1", "2"} <= {str(version.version) for version in known}
