"""The serving image: built by a real engine, fed by an MLflow server, asked by HTTP."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from registry import MODEL_NAME
from registry.download import resolve
from registry.record import record
from scripts.server_process import build_mlflow, free_port
from tests.basic_auth import write_basic_auth
from tests.docker_engine import build_image, docker, require_engine
from tests.registry.project import make_project
from tests.serving.conftest import wait_until
from tests.serving.service_process import Service, question

LARGEST_BYTES = 300_000_000
MODEL_URI = f"models:/{MODEL_NAME}/2"
SERVER = "registry"  # the host's name in a container
PASSWORD = "a password of this test"
READ_ONLY = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# Imports what a start does, and prints the modules that it would have to compile.
UNCOMPILED = f"""
import os, sys, tempfile
from pathlib import Path
import serving.__main__, uvloop, uvicorn.protocols.http.httptools_impl
from registry import download
with tempfile.TemporaryDirectory() as folder:
    download.download(download.resolve({MODEL_URI!r}), Path(folder))
for name, module in sys.modules.items():
    cached = getattr(module, "__cached__", None)
    if cached and "/site-packages/" in cached and not os.path.exists(cached):
        print(name)
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def image() -> str:
    require_engine()
    return build_image("arithmetic-lm:test")


class Signed(NamedTuple):
    """A registry with two signed versions, and the options of a container that uses it."""

    digest: str
    options: tuple[str, ...]
    keys: Path


def make_keys(folder: Path) -> Path:
    folder.mkdir()
    for command in (
        f"ecparam -name prime256v1 -genkey -noout -out {folder}/private.pem",
        f"ec -in {folder}/private.pem -pubout -out {folder}/public.pem",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def signed(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    """Serve a registry on the containers' network; reading needs a password."""
    folder = tmp_path_factory.mktemp("registry")
    # A network of its own: a fresh engine's default bridge names no gateway.
    network = docker("network", "create", f"arithmetic-lm-test-{os.getpid()}")
    gateway = docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}")
    config = folder / "basic-auth.ini"
    write_basic_auth(config, folder, PASSWORD)
    keys = make_keys(folder / "keys")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.callback(docker, "network", "rm", network)
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(config))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "any")
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        patch.setenv("SIGNING_KEY", str(keys / "private.pem"))
        hosts = f"--allowed-hosts={gateway}:*,{SERVER}:*"
        with build_mlflow(folder, "--app-name=basic-auth", hosts, host=gateway) as server:
            patch.setenv("MLFLOW_TRACKING_URI", server.address)
            patch.setenv("no_proxy", gateway)
            for seed in (1, 2):
                record(make_project(folder / f"project-{seed}", seed))
            options = (
                f"--network={network}",
                f"--add-host={SERVER}:{gateway}",
                f"--env=MLFLOW_TRACKING_URI={server.address.replace(gateway, SERVER)}",
                "--env=MLFLOW_TRACKING_USERNAME",
                "--env=MLFLOW_TRACKING_PASSWORD",
                f"--env=MODEL_URI={MODEL_URI}",
                f"--env=no_proxy={SERVER}",
            )
            yield Signed(resolve(MODEL_URI).digest, options, keys)


class Container(NamedTuple):
    """A running container and its service."""

    identity: str
    service: Service


@pytest.fixture
def start(image: str, signed: Signed, tmp_path: Path) -> Iterator[Callable[[Path], Container]]:
    """Return a function that starts the service with a trusted key, on a read-only file system."""
    with ExitStack() as stack:

        def start(key: Path) -> Container:
            port = free_port()
            key.chmod(0o444)
            trusted = (f"--volume={key}:/key.pem:ro", "--env=TRUSTED_KEY=/key.pem")
            arguments = (*READ_ONLY, *signed.options, *trusted, f"--publish=127.0.0.1:{port}:8000")
            identity = docker("run", "--detach", *arguments, image)
            stack.callback(docker, "rm", "--force", "--volumes", identity)
            return Container(identity, Service(None, port, tmp_path / "log"))  # type: ignore[arg-type]

        yield start


def health(container: Container) -> dict[str, object]:
    """Return the body of /health; empty while nothing listens."""
    try:
        return container.service.health()
    except OSError:
        return {}


def test_the_image_is_small_and_has_nothing_of_training(image):
    assert int(docker("image", "inspect", "-f", "{{.Size}}", image)) <= LARGEST_BYTES
    code = "import pkgutil; print(*(module.name for module in pkgutil.iter_modules()))"
    modules = {*docker("run", "--rm", image, "python", "-c", code).split()}
    assert {"onnxruntime", "mlflow", "serving"} <= modules
    assert {"torch", "dvc", "sqlalchemy", "pandas", "onnx", "pip", "stages"}.isdisjoint(modules)
    tools = "! command -v cc gcc c++ ld strip"
    docker("run", "--rm", image, "sh", "-c", tools)


def test_a_container_serves_a_signed_version_from_a_server_with_passwords(start, signed):
    container = start(signed.keys / "public.pem")
    wait_until(lambda: health(container).get("status") == "ok", 120)
    body = health(container)
    assert (body["model_version"], body["model_digest"]) == ("2", signed.digest)
    status, _, answer = container.service.ask(question("3+4="))
    assert status == 200
    assert json.loads(answer)["predicted_answer"] == "7"
    assert docker("exec", container.identity, "id", "-u") == "10001"
    docker("stop", "--time=20", container.identity)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", container.identity) == "0"


def test_a_container_refuses_a_version_that_another_key_signed(start, tmp_path):
    container = start(make_keys(tmp_path / "foreign") / "public.pem")
    wait_until(lambda: "signature" in json.dumps(health(container)), 120)
    assert container.service.get("/readyz")[0] == 503


def test_what_a_start_imports_is_compiled_in_the_image(image, signed):
    trusted = (f"--volume={signed.keys}/public.pem:/key.pem:ro", "--env=TRUSTED_KEY=/key.pem")
    command = ("run", "--rm", *READ_ONLY, *signed.options, *trusted, image, "python", "-c")
    assert docker(*command, UNCOMPILED) == ""
