"""The Docker engine: build the serving image, run it, ask it.

For `make docker` and the tests alike. Everything goes through the `docker` command, which finds the
engine as the user set it up.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from arithmetic.errors import Problem
from scripts.client import get
from scripts.tracking_server import free_port

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "arithmetic-lm"
# By this name a container calls the machine it runs on, on Linux as on Docker Desktop.
HOST_NAME = "host.docker.internal"
# Passed to the build where they are set, so that it can install where this machine can.
BUILD_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
READY_SECONDS = 60.0
_STATE = ("inspect", "--format")


def docker(*arguments: str) -> str:
    """Run the Docker client; what it printed. Raises Problem with its last words."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise Problem(
            "there is no docker command: install Docker Desktop, or on Debian and Ubuntu "
            "`apt-get install docker.io`"
        ) from error
    if done.returncode != 0:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise Problem(f"`docker {arguments[0]}` failed: {words}")
    return done.stdout.strip()


def check_engine() -> None:
    """Raise Problem if there is no Docker engine that answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except Problem as problem:
        if "there is no docker command" in str(problem):
            raise
        raise Problem(
            "no Docker engine answers (start Docker Desktop, or on Linux `systemctl start docker` "
            f"and be in the group docker); {problem}"
        ) from problem


def build(tag: str = IMAGE) -> None:
    """Build the serving image."""
    given = [name for name in BUILD_VARIABLES if os.environ.get(name)]
    docker("build", "--tag", tag, *(f"--build-arg={name}" for name in given), str(ROOT))


def reachable_address() -> str:
    """The address of this machine on which a server is seen by containers, and by few others.

    Docker Desktop passes HOST_NAME on to loopback. A Linux engine means by it the gateway of its
    bridge, an address of this machine.
    """
    if platform.system() != "Linux":
        return "127.0.0.1"
    config = json.loads(docker("network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"))
    # Engine 20.10 leaves the gateway out; it is the subnet's first address then.
    gateway = config[0].get("Gateway") or str(ip_network(config[0]["Subnet"])[1])
    try:
        free_port(gateway)
    except Problem:  # Docker Desktop for Linux: the bridge is in its virtual machine
        return "127.0.0.1"
    return gateway


def run_arguments(tracking_uri: str, model_uri: str, port: int) -> list[str]:
    """What to say after `docker run` for a service on this machine's loopback `port`."""
    return [
        "--add-host", f"{HOST_NAME}:host-gateway",
        "--publish", f"127.0.0.1:{port}:8000",
        "--env", f"MLFLOW_TRACKING_URI={tracking_uri}",
        "--env", f"MODEL_URI={model_uri}",
        "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
    ]  # fmt: skip


@contextmanager
def container(image: str, arguments: list[str]) -> Iterator[str]:
    """A detached container, removed at the end of the block; yields its id."""
    identity = docker("run", "--detach", *arguments, image)
    try:
        yield identity
    finally:
        docker("rm", "--force", "--volumes", identity)


def health_of(url: str) -> dict[str, Any] | None:
    """What /health says; None while nothing listens there, or no model is loaded (503)."""
    try:
        return get(f"{url}/health", timeout=2)
    except OSError:
        return None


def wait_until_ready(identity: str, url: str) -> dict[str, Any]:
    """What /health says once a model is loaded; raises Problem with the container's log."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and docker(*_STATE, "{{.State.Running}}", identity) == "true":
        health = health_of(url)
        if health is not None and health["model_loaded"]:
            return health
        time.sleep(0.2)
    raise Problem(f"the container did not come to answer; its log ends: {log_of(identity)}")


def wait_until_healthy(identity: str) -> None:
    """Wait for the image's own HEALTHCHECK; raises Problem when it does not pass in time."""
    deadline = time.monotonic() + READY_SECONDS
    while docker(*_STATE, "{{.State.Health.Status}}", identity) != "healthy":
        if time.monotonic() > deadline:
            last = docker(*_STATE, "{{json .State.Health.Log}}", identity)
            raise Problem(f"the container's health check does not pass: {last[-500:]}")
        time.sleep(0.5)


def log_of(identity: str) -> str:
    """The last lines of a container's log, in one."""
    done = subprocess.run(
        ["docker", "logs", "--tail", "6", identity], capture_output=True, text=True, check=False
    )
    return " | ".join((done.stdout + done.stderr).strip().splitlines())
