"""deploy/nginx with a real nginx: mirror, split, limits, JSON errors, a candidate that hangs."""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.server_process import ROOT, ServerProcess, free_port
from tests.serving import service_process
from tests.serving.model_directories import make_model
from tests.serving.service_process import Service, question, run_service

SOURCE = ROOT / "deploy" / "nginx"
NGINX = os.environ.get("NGINX_BINARY") or shutil.which(
    "nginx", path=f"{os.environ['PATH']}:/usr/sbin"
)
pytestmark = pytest.mark.skipif(
    NGINX is None and not os.environ.get("CI"), reason="nginx is not installed"
)


@pytest.fixture(scope="module")
def production(tmp_path_factory, exact_model) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("production") / "log"
    with run_service(log, MODEL_URI=exact_model) as service:
        yield service


@pytest.fixture(scope="module")
def candidate(tmp_path_factory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("candidate")
    with run_service(root / "log", MODEL_URI=make_model(root / "model", seed=7)) as service:
        yield service


@pytest.fixture
def hanging() -> Iterator[int]:
    """Return the port of something that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield int(server.getsockname()[1])


@contextmanager
def run_nginx(folder: Path, mode: str, production: int, candidate: int) -> Iterator[Service]:
    """Run nginx with a configuration of deploy/nginx, its addresses replaced."""
    assert NGINX is not None
    folder.mkdir()
    port, sink = free_port(), free_port()
    for file in SOURCE.glob("*.conf"):
        text = file.read_text().replace("/tmp/", f"{folder}/")
        text = text.replace("/etc/nginx/arithmetic-lm", str(folder))
        text = text.replace("service:8000", f"127.0.0.1:{production}")
        text = text.replace("candidate:8000", f"127.0.0.1:{candidate}")
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
        text = text.replace("127.0.0.1:8090", f"127.0.0.1:{sink}")
        name = "site.conf" if file.name == f"{mode}.conf" else file.name
        (folder / name).write_text(text)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    # The mirror's own server answers without a service too.
    address = f"http://127.0.0.1:{sink if mode == 'mirror' else port}"
    with ServerProcess(command, address, "/livez", folder / "log", os.environ) as nginx:
        yield Service(nginx.process, port, nginx.log)


def ask(nginx: Service, count: int) -> list[float]:
    """Ask on one connection; return the seconds of each answer, sorted."""
    seconds = []
    with nginx.connect() as connection:
        for number in range(count):
            started = time.monotonic()
            connection.sendall(question(f"{number % 90}+1="))
            status, _, body = service_process.read_response(connection)
            seconds.append(time.monotonic() - started)
            assert status == 200, body
            assert json.loads(body)["predicted_answer"] == str(number % 90 + 1)
    return sorted(seconds)


def checked(service: Service) -> int:
    accuracy = service.health()["accuracy"]
    assert isinstance(accuracy, dict)
    return int(accuracy["checked"])


def test_mirror_copies_each_question_to_the_candidate(tmp_path, production, candidate):
    with run_nginx(tmp_path / "nginx", "mirror", production.port, candidate.port) as nginx:
        before = checked(production), checked(candidate)
        ask(nginx, 40)
        nginx.get("/health")
        time.sleep(0.3)
        assert checked(production) - before[0] == checked(candidate) - before[1] == 40


@pytest.mark.parametrize("mode", ["mirror", "split"])
def test_a_hanging_or_stopped_candidate_fails_no_request(tmp_path, production, hanging, mode):
    for number, port in enumerate([hanging, free_port()]):
        with run_nginx(tmp_path / f"nginx{number}", mode, production.port, port) as nginx:
            seconds = ask(nginx, 300)
        if mode == "mirror":
            assert seconds[int(0.98 * len(seconds))] < 0.05  # all but the three that found it out
            assert seconds[-1] < 0.5


def test_split_lets_the_candidate_answer_a_twentieth(tmp_path, production, candidate):
    with run_nginx(tmp_path / "nginx", "split", production.port, candidate.port) as nginx:
        before = checked(production), checked(candidate)
        ask(nginx, 400)
        time.sleep(0.3)
        share = checked(candidate) - before[1]
        assert 4 <= share <= 45  # expected: 20; the bounds are beyond four standard deviations
        assert checked(production) - before[0] == 400 - share


def test_errors_of_nginx_are_json(tmp_path, production):
    with run_nginx(tmp_path / "nginx", "mirror", production.port, free_port()) as nginx:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
        status, _, body = nginx.ask(head.encode())
        assert (status, list(json.loads(body))) == (413, ["detail"])
    with run_nginx(tmp_path / "other", "mirror", free_port(), free_port()) as nginx:
        status, headers, body = nginx.ask(question("1+1="))
        assert (status, headers["retry-after"], list(json.loads(body))) == (503, "2", ["detail"])


def test_a_request_id_is_passed_through_or_made(tmp_path, production):
    with run_nginx(tmp_path / "nginx", "split", production.port, production.port) as nginx:
        assert nginx.ask(question("1+1=", "X-Request-ID: mine"))[1]["x-request-id"] == "mine"
        assert len(nginx.ask(question("1+1="))[1]["x-request-id"]) == 32
