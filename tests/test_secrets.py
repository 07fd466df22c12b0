"""Planted secrets never reach outputs, files, runs, answers, logs or errors."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import MODEL_NAME
from scripts.server_process import build_mlflow
from tests.basic_auth import write_basic_auth
from tests.serving.service_process import question, run_service
from tests.small_project import ROOT, dvc, run

PASSWORD = "canary-of-the-tracking-server"
API_KEY = "canary-of-a-client"
CANARY = b"canary-of-"


def find_canaries(*places: Path) -> list[Path]:
    """Return the files below the places that contain a planted secret."""
    files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    assert files
    return [path for path in files if CANARY in path.read_bytes()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Serve a registry with a password; return its folder and the variables of its user."""
    config, folder = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("registry")
    write_basic_auth(config / "basic-auth.ini", folder, PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(config / "basic-auth.ini"))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "any")
        with build_mlflow(folder, "--app-name=basic-auth") as mlflow:
            user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
            yield folder, {"MLFLOW_TRACKING_URI": mlflow.address, **user}


@pytest.mark.slow
def test_a_pipeline_and_a_promotion_leave_no_secret(project, server, tmp_path):
    folder, variables = server
    output = dvc(project, "repro", **variables)
    assert f"{MODEL_NAME} version 1" in output
    command = (sys.executable, "-m", "registry.promotion", "1", "--override-gate", "a test")
    promoted = run(project, *command, **variables)
    assert promoted.returncode == 0, promoted.stderr
    (tmp_path / "output").write_text(output + promoted.stdout + promoted.stderr)
    assert find_canaries(project, folder, tmp_path / "output") == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["variable", "address"])
def test_a_refused_password_is_not_in_the_error(server, place):
    _, variables = server
    wrong = f"{PASSWORD}-of-yesterday"
    address = variables["MLFLOW_TRACKING_URI"]
    changes = {"MLFLOW_TRACKING_PASSWORD": wrong}
    if place == "address":
        changes = {"MLFLOW_TRACKING_URI": address.replace("//", f"//admin:{wrong}@")}
        variables = {}
    command = (sys.executable, "-m", "registry.promotion", "1")
    done = run(ROOT, *command, **variables | changes)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert CANARY not in (done.stdout + done.stderr).encode()


@pytest.mark.slow
def test_a_service_and_its_answers_show_no_secret(project, server, tmp_path):
    _, variables = server
    dvc(project, "repro", **variables)
    settings = {
        **variables,
        "MODEL_URI": f"models:/{MODEL_NAME}/1",
        "MODEL_CACHE": tmp_path / "cache",
        "API_KEYS": f"client={hashlib.sha256(API_KEY.encode()).hexdigest()}",
        "LOG_SAMPLE": 1,
        "MAX_ERROR_RATE": 1,  # the small model is often wrong
    }
    with run_service(tmp_path / "log", **settings) as service:
        answers = [
            service.ask(question("1+1=", f"Authorization: Bearer {API_KEY}")),
            service.ask(question("1+1=", f"X-API-Key: {API_KEY}-of-yesterday")),
            service.ask(question("?", f"X-API-Key: {API_KEY}")),
            service.get("/health"),
            service.get("/readyz"),
        ]
        assert [status for status, *_ in answers[:3]] == [200, 401, 422]
        service.process.terminate()
        assert service.process.wait(30) == 0
    assert CANARY not in repr(answers).encode()
    assert (tmp_path / "log").stat().st_size > 0
    assert find_canaries(tmp_path) == []


def test_a_planted_secret_is_found(tmp_path):
    (tmp_path / "log").write_text(f"password={PASSWORD}")
    assert find_canaries(tmp_path) == [tmp_path / "log"]
