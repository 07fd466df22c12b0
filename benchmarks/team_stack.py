"""Run the team's stack (deploy/team) with stand-ins for its images, in volumes of its own."""

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from scripts.server_process import free_port

TEAM = ROOT / "deploy" / "team"
FILES = ("-f", f"{TEAM}/compose.yaml", "-f", f"{ROOT}/tests/deploy/override.yaml")
REPLICAS = ("service-1", "service-2")
HEALTHY_SECONDS = 120.0
_PORTS = ("PORT", "TRACKING_PORT", "PROMETHEUS_PORT")
_IMAGES = {"SERVICE_IMAGE": "arithmetic-lm:test", "MLFLOW_IMAGE": "arithmetic-lm-mlflow:test"}
_HEALTH = (
    "import json, urllib.request as r, urllib.error as e\n"
    "try: print(json.load(r.urlopen('http://127.0.0.1:8000/health'))['model_version'])\n"
    "except (e.URLError, KeyError): print()"
)


class Stack(NamedTuple):
    """A running stack: compose's options, its environment with the ports, and its secrets."""

    options: tuple[str, ...]
    environment: dict[str, str]
    secrets: dict[str, str]

    def compose(self, *arguments: str) -> str:
        """Run docker-compose and return its output; raise UserError with the end of it."""
        done = subprocess.run(
            ["docker-compose", *self.options, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            output = (done.stdout + done.stderr)[-2000:]
            raise UserError(f"docker-compose {arguments[0]} failed:\n{output}")
        return done.stdout

    def address(self, port: str = "PORT") -> str:
        """Return the address of a published port."""
        return f"http://127.0.0.1:{self.environment[port]}"

    def versions(self) -> list[str]:
        """Return the version that each replica serves, empty for none."""
        return [_docker("exec", self.container(name), "python", "-c", _HEALTH) for name in REPLICAS]

    def container(self, name: str) -> str:
        """Return the container of a service."""
        labels = {"project": self.options[1], "service": name}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return _docker("ps", "--quiet", *filters)

    def credentials(self, user: str) -> dict[str, str]:
        """Return the variables with which `user` uses MLflow."""
        return {
            "MLFLOW_TRACKING_URI": self.address("TRACKING_PORT"),
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": self.secrets[f"{user.upper()}_PASSWORD"],
        }

    @contextmanager
    def load(self) -> Iterator[Counter[str]]:
        """Ask the service again and again, on a new connection after an error.

        The counter holds the answers that are right, wrong, and of another status than 200
        (failed), and the requests without an answer (refused).
        """
        counts: Counter[str] = Counter()
        client = httpx.Client(base_url=self.address(), trust_env=False, timeout=10)

        def ask() -> None:
            number = counts.total() % 10  # in the domain of every model
            try:
                answer = client.post("/predict", json={"equation": f"{number}+7="})
            except httpx.TransportError:
                counts["refused"] += 1
                return
            if answer.status_code != 200:
                counts["failed"] += 1
            elif answer.json()["predicted_answer"] == str(number + 7):
                counts["right"] += 1
            else:
                counts["wrong"] += 1

        with client, repeat(ask, 0.01):
            yield counts

    def wait_until_healthy(self, name: str) -> None:
        """Wait until Docker calls a service healthy; raise UserError after HEALTHY_SECONDS."""
        deadline, health = time.monotonic() + HEALTHY_SECONDS, "{{.State.Health.Status}}"
        while _docker("inspect", "-f", health, self.container(name)) != "healthy":
            if time.monotonic() > deadline:
                message = f"{name} is not healthy after {HEALTHY_SECONDS:g} s"
                raise UserError(message, "look at its log")
            time.sleep(0.2)


@contextmanager
def repeat(action: Callable[[], object], pause: float) -> Iterator[None]:
    """Call `action` again and again in a thread."""
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.wait(pause):
            action()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _docker(*arguments: str) -> str:
    """Return the output, empty where a container is not running at the moment."""
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def run_stack(folder: Path) -> Iterator[Stack]:
    """Build and start everything, with secrets in `folder`; remove it with its volumes."""
    file = folder / "env"
    subprocess.run([TEAM / "secrets.sh", file], check=True, capture_output=True)
    secrets = dict(line.split("=", 1) for line in file.read_text().splitlines())
    options = ("-p", f"arithmetic-lm-test-{os.getpid()}", "--env-file", str(file), *FILES)
    ports = {name: str(free_port()) for name in _PORTS}
    stack = Stack(options, {**os.environ, **ports, **_IMAGES}, secrets)
    try:
        stack.compose("up", "--build", "--detach")
        yield stack
    finally:
        stack.compose("--profile", "monitoring", "down", "--volumes")
