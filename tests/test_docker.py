"""The container: built by a real engine, fed by a real MLflow server, asked over HTTP."""

import ast
import asyncio
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from arithmetic import bundle
from benchmarks.module_run import in_folder
from registry import ALIAS, MODEL
from scripts import containers
from scripts.client import ask
from scripts.containers import HOST_NAME, ROOT, docker
from scripts.tracking_server import free_port, tracking_server
from tests.docker_engine import require_engine
from tests.saturated import CONNECTIONS, under_load

IMAGE = "arithmetic-lm:test"
MODEL_URI = f"models:/{MODEL}@{ALIAS}"


@pytest.fixture(scope="module")
def image() -> str:
    require_engine()
    containers.build(IMAGE)
    return IMAGE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed pipeline results in a folder with a store of its own, recorded and promoted.

    A fresh clone has no data sets (they are in DVC's cache only): what dvc.lock says of `generate`
    is left out.
    """
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    for name in ("bundle", "metrics"):
        shutil.copytree(ROOT / name, folder / name)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    del lock["stages"]["generate"]
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    in_folder(folder, "registry.record")
    in_folder(folder, "registry.promote", "1")
    return folder


@dataclass(frozen=True)
class Service:
    """A running container, ready: its id and where it listens."""

    identity: str
    url: str


@pytest.fixture(scope="module")
def service(image: str, workspace: Path) -> Iterator[Service]:
    address = containers.reachable_address()
    port = free_port("127.0.0.1")
    with tracking_server(workspace, address, [HOST_NAME]) as server:
        tracking_uri = server.replace(address, HOST_NAME)
        arguments = containers.run_arguments(tracking_uri, MODEL_URI, port)
        with containers.container(image, arguments) as identity:
            url = f"http://127.0.0.1:{port}"
            containers.wait_until_ready(identity, url)
            yield Service(identity, url)


@pytest.mark.docker
@pytest.mark.slow
def test_the_container_answers_with_the_promoted_version(service: Service, workspace: Path) -> None:
    health = containers.health_of(service.url)
    assert health is not None
    assert health["status"] == "ok"
    assert health["model_version"] == "1"
    answer = ask(service.url, "951+11=")
    assert answer["predicted_answer"] == "962"
    assert answer["full_output"] == "951+11=962"
    assert answer["model_version"] == "1"
    pulled = docker("exec", service.identity, "find", "/tmp", "-name", bundle.WEIGHTS)
    digest = docker("exec", service.identity, "sha256sum", pulled).split()[0]
    assert digest == bundle.file_digest(workspace / "bundle" / bundle.WEIGHTS)
    assert health["bundle_sha256"] == bundle.digest(workspace / "bundle")


@pytest.mark.docker
@pytest.mark.slow
def test_the_container_runs_as_nobody_in_particular(service: Service) -> None:
    assert docker("exec", service.identity, "id", "-u") == "10001"
    assert docker("inspect", "--format", "{{.Config.User}}", service.identity) == "service"


@pytest.mark.docker
@pytest.mark.slow
def test_the_image_has_no_training_dependencies(image: str) -> None:
    code = "import pkgutil; print(*(module.name for module in pkgutil.iter_modules()))"
    modules = docker("run", "--rm", image, "python", "-c", code).split()
    assert "onnxruntime" in modules
    unwanted = {"torch", "dvc", "mlflow", "pandas", "onnx", "pip", "pytest", "stages", "tests"}
    assert unwanted.isdisjoint(modules)


@pytest.mark.docker
@pytest.mark.slow
def test_the_container_turns_healthy_and_stops_cleanly(service: Service) -> None:
    """The last test of this module: the container is gone after it. 64 clients ask meanwhile."""
    containers.wait_until_healthy(service.identity)
    port = int(service.url.rpartition(":")[2])
    end = partial(docker, "stop", "--time", "20", service.identity)
    count = asyncio.run(under_load(port, end))
    assert count.answered > CONNECTIONS
    assert (count.cut, count.wrong, count.closed_politely) == (0, 0, CONNECTIONS)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", service.identity) == "0"
    assert "Traceback" not in containers.log_of(service.identity)


def test_the_dockerfile_copies_what_the_service_imports_and_nothing_else() -> None:
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        copied |= set(re.findall(r"\b(?:arithmetic|registry)/\w+\.py\b", line))
    assert copied == {path for path in imported("serving") if not path.startswith("serving/")}


def imported(package: str) -> set[str]:
    """The project's files that a package loads, its own included, by following imports."""
    todo = [path.relative_to(ROOT).as_posix() for path in (ROOT / package).glob("*.py")]
    found: set[str] = set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        names = {f"{Path(path).parent}"}
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        for name in names:
            place = ROOT / name.replace(".", "/")
            for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                if candidate.is_file():
                    todo.append(candidate.relative_to(ROOT).as_posix())
    return found


def test_the_serving_lock_is_hashed_and_agrees_with_the_development_lock() -> None:
    serving = (ROOT / "requirements" / "serving.lock").read_text()
    pins = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", serving, re.M))
    development = (ROOT / "requirements" / "dev.lock").read_text()
    assert pins.items() <= dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", development, re.M)).items()
    assert serving.count("--hash=sha256:") >= len(pins)
    assert "://" not in serving + development
