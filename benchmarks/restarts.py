"""Restart each part of the team's stack while it answers and registers; count what is lost.

    make bench-restarts        python -m benchmarks.restarts

Runs deploy/team with stand-ins for the upstream images, in volumes of its own. A loop asks the
service, another one logs runs with the model's files and registers them as versions. Writes
benchmarks/results/restarts.json; exits with 1 if an acknowledged answer was wrong, or an
acknowledged run or version is gone.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.serving_load import Check, Loops, encode_post, is_right
from registry import EXPERIMENT, MODEL_NAME
from registry.client import open_client, registry_errors
from registry.exceptions import RegistryError
from registry.promotion import promote
from registry.record import record
from scripts.server_process import free_port

TEAM = ROOT / "deploy" / "team"
FILES = ("-f", f"{TEAM}/compose.yaml", "-f", f"{ROOT}/tests/deploy/override.yaml")
REPLICAS = ("service-1", "service-2")
PARTS = (*REPLICAS, "mlflow", "postgres", "s3", "nginx")
HEALTHY_SECONDS = 120.0
LOAD_SECONDS = 5.0  # of load before and after a restart
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

    def load(self) -> Loops:
        """Return a loop that asks the service again and again."""
        return Loops(int(self.environment["PORT"]), _questions())

    def restart(self, name: str) -> None:
        """Restart a service and wait until it is healthy."""
        self.compose("restart", name)
        self.wait_until_healthy(name)

    def wait_until_healthy(self, name: str) -> None:
        """Wait until Docker calls a service healthy; raise UserError after HEALTHY_SECONDS."""
        deadline, health = time.monotonic() + HEALTHY_SECONDS, "{{.State.Health.Status}}"
        while _docker("inspect", "-f", health, self.container(name)) != "healthy":
            if time.monotonic() > deadline:
                message = f"{name} is not healthy after {HEALTHY_SECONDS:g} s"
                raise UserError(message, "look at its log")
            time.sleep(0.2)


def _questions() -> Iterator[tuple[bytes, Check]]:
    """Yield questions in the domain of every model, a hundred each second."""
    for number in cycle(range(10)):
        time.sleep(0.01)
        content = encode_post("/predict", {"equation": f"{number}+7="})
        yield content, partial(is_right, str(number + 7), range(600))


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


class Registrations(NamedTuple):
    """Runs and versions that MLflow acknowledged, and the errors of the other attempts."""

    runs: list[str]
    versions: list[str]
    failed: list[str]


@registry_errors()
def register(done: Registrations) -> None:
    """Log a run with the model's files and create a version of it."""
    client = open_client()
    (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    run = client.create_run(experiment.experiment_id)
    client.log_artifacts(run.info.run_id, str(ROOT / "model"))
    client.set_terminated(run.info.run_id)
    done.runs.append(run.info.run_id)
    version = client.create_model_version(MODEL_NAME, run.info.artifact_uri, run.info.run_id)
    done.versions.append(str(version.version))


@contextmanager
def registering() -> Iterator[Registrations]:
    """Register again and again in the background."""
    done, stopped = Registrations([], [], []), threading.Event()

    def loop() -> None:
        while not stopped.wait(0.1):
            try:
                register(done)
            except RegistryError as error:
                done.failed.append(error.message)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield done
    finally:
        stopped.set()
        thread.join()


@registry_errors()
def count_lost(done: Registrations) -> dict[str, int]:
    """Return how many acknowledged runs, with all their files, and versions are gone."""
    client = open_client()
    files = {path.name for path in (ROOT / "model").iterdir()}
    runs = 0
    for run in done.runs:
        listed = {info.path for info in client.list_artifacts(run)}
        runs += client.get_run(run).info.status != "FINISHED" or listed != files
    known = {str(v.version) for v in client.search_model_versions(f"name = '{MODEL_NAME}'")}
    return {"lost_runs": runs, "lost_versions": len(set(done.versions) - known)}


def measure(stack: Stack, name: str) -> dict[str, Any]:
    """Restart one part under load."""
    with stack.load().running(1) as loops, registering() as done:
        time.sleep(LOAD_SECONDS)
        started = time.monotonic()
        stack.restart(name)
        seconds = time.monotonic() - started
        time.sleep(LOAD_SECONDS)
    refused = sum(loops.counts[key] for key in ("refused", "cut", "unanswered"))
    return {
        "restarted": name,
        "seconds": round(seconds, 1),
        "requests": loops.answers + refused,
        "wrong": loops.counts["wrong"],
        "failed": loops.answers - loops.counts[200],
        "refused": refused,
        "registered": len(done.versions),
        "registrations_failed": len(done.failed),
        **count_lost(done),
    }


def main() -> None:
    """Restart all parts in turn and write the table."""
    with cli_errors(), tempfile.TemporaryDirectory() as folder, run_stack(Path(folder)) as stack:
        os.environ |= stack.credentials("registrar")
        version = record(ROOT).version
        os.environ |= stack.credentials("promoter")
        promote(version, ROOT)
        os.environ |= stack.credentials("registrar")
        for name in REPLICAS:
            stack.wait_until_healthy(name)
        rows = []
        for name in PARTS:
            rows.append(measure(stack, name))
            print(rows[-1], flush=True)
        print(table(rows))
        print(f"wrote {write('restarts', {'restarts': rows})}")
        if any(row["wrong"] + row["lost_runs"] + row["lost_versions"] for row in rows):
            raise UserError("something acknowledged was lost (see above)")


if __name__ == "__main__":
    main()
