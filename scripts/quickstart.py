"""Train, register and promote a model, then ask a service one question.

    make run        python -m scripts.quickstart               the service stops afterwards
    make docker     starts compose.yaml first; python -m scripts.quickstart --docker

Repeating it does only what is missing. A version that is not new is promoted only if there is no
Production, so it never undoes a promotion or a rollback.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arithmetic.errors import UserError, cli_errors
from registry import MODEL_NAME, PRODUCTION
from registry.client import open_client, registry_errors
from registry.download import alias_target
from registry.promotion import promote
from registry.record import record
from scripts.experiment import ROOT, dvc
from scripts.server_process import build_service, request, wait_for

TRACKING_URI = f"http://127.0.0.1:{os.environ.get('TRACKING_PORT') or 5000}"  # of compose.yaml


@registry_errors()
def reproduce_and_promote() -> str:
    """Run `dvc repro` and promote the version if it is new; return the one in Production."""
    client = open_client()
    known = {str(v.version) for v in client.search_model_versions(f"name = '{MODEL_NAME}'")}
    started = time.monotonic()
    if dvc("repro"):
        raise UserError("dvc repro failed (see above)", "fix that and run this again")
    print(f"pipeline: {time.monotonic() - started:.0f} s", flush=True)
    version = record(ROOT).version
    present = alias_target(client, PRODUCTION)
    if present is not None and present != version and version in known:
        hint = f"`make promote VERSION={version}` promotes version {version}"
        print(f"registry: {PRODUCTION} stays version {present}; {hint}", flush=True)
        return present
    print(f"registry: {promote(version, ROOT, 'quickstart')}", flush=True)
    return version


@contextmanager
def local_service() -> Iterator[str]:
    """Run the service on PORT or a free port; yield its address when it is ready."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("API_KEYS")}
    variables |= {"ROOT_PATH": "", "MODEL_URI": f"models:/{MODEL_NAME}@{PRODUCTION}"}
    with tempfile.NamedTemporaryFile(prefix="arithmetic-lm-", suffix=".log", delete=False) as file:
        log = Path(file.name)
    service = build_service(log, variables, os.environ.get("PORT", ""))
    service.hint = f"its log is {log}"
    with service:
        yield service.address
    log.unlink()


def ask(address: str) -> str:
    """Ask for 951+11, or the nearest sum in the domain; return the answer as one line."""
    health = request(f"{address}/health")
    operation, largest = health["operations"][0], health["max_operand"]
    equation = f"{min(951, largest)}{operation}{min(11, largest)}="
    answer = request(f"{address}/predict", {"equation": equation})
    return (
        f"version {answer['model_version']} answered {answer['full_output']} "
        f"in {answer['latency_ms']} ms"
    )


def run() -> None:
    """Do all steps with the store in the repository, or the one of MLFLOW_TRACKING_URI."""
    reproduce_and_promote()
    with local_service() as address:
        print(f"service: {ask(address)}")
    print(
        "\nnext, after `source .venv/bin/activate`:\n"
        "  make serve                         serve Production on port 8000\n"
        "  dvc exp run -S train.seed=2        train another model\n"
        "  make promote VERSION=2             make it Production; `make rollback` returns\n"
        "  mlflow ui                          compare runs and versions"
    )


def run_in_containers() -> None:
    """Do all steps with the MLflow server and the service of compose.yaml."""
    command = os.environ.get("COMPOSE", "docker compose")
    logs = f"look at `{command} logs`"
    os.environ["MLFLOW_TRACKING_URI"] = TRACKING_URI
    wait_for(f"{TRACKING_URI}/health", logs)
    version = reproduce_and_promote()
    address = f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
    wait_for(f"{address}/readyz", logs)
    print(f"service: {ask(address)}")
    print(
        f"\nnext:\n"
        f"  {TRACKING_URI}            MLflow's pages, with version {version}\n"
        f"  {address}            ask the service\n"
        f"  MLFLOW_TRACKING_URI={TRACKING_URI} make promote VERSION=…\n"
        f"  {command} down        stop both; with --volumes forget the versions"
    )


def main() -> None:
    """Run the quickstart."""
    parser = argparse.ArgumentParser(prog="python -m scripts.quickstart")
    parser.add_argument("--docker", action="store_true", help="with the containers of compose.yaml")
    containers = parser.parse_args().docker
    for name in (signal.SIGTERM, signal.SIGHUP):  # leave the blocks, which stop the service
        signal.signal(name, lambda number, _: sys.exit(128 + number))
    with cli_errors():
        if containers:
            run_in_containers()
        else:
            run()


if __name__ == "__main__":
    main()
