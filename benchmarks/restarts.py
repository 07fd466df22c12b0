"""Restart each part of the team's stack while it answers and registers; count what is lost.

    make bench-restarts        python -m benchmarks.restarts

Runs deploy/team with stand-ins for the upstream images. A loop asks the service, another one logs
runs with the model's files and registers them as versions. Writes benchmarks/results/restarts.json;
exits with 1 if an acknowledged answer was wrong, or an acknowledged run or version is gone.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.team_stack import REPLICAS, Stack, repeat, run_stack
from registry import EXPERIMENT, MODEL_NAME
from registry.client import open_client, registry_errors
from registry.exceptions import RegistryError
from registry.promotion import promote
from registry.record import record

PARTS = (*REPLICAS, "mlflow", "postgres", "s3", "nginx")
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 5.0  # of load around a restart


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
    done = Registrations([], [], [])

    def attempt() -> None:
        try:
            register(done)
        except RegistryError as error:
            done.failed.append(error.message)

    with repeat(attempt, 0.1):
        yield done


@registry_errors()
def count_lost(done: Registrations) -> tuple[int, int]:
    """Return how many acknowledged runs, with all their files, and versions are gone."""
    client = open_client()
    files = {path.name for path in (ROOT / "model").iterdir()}
    runs = 0
    for run in done.runs:
        listed = {info.path for info in client.list_artifacts(run)}
        runs += client.get_run(run).info.status != "FINISHED" or listed != files
    known = {str(v.version) for v in client.search_model_versions(f"name = '{MODEL_NAME}'")}
    return runs, len(set(done.versions) - known)


def restart(stack: Stack, name: str) -> dict[str, Any]:
    """Restart one part under load."""
    with stack.load() as counts, registering() as done:
        time.sleep(BEFORE_SECONDS)
        started = time.monotonic()
        stack.compose("restart", name)
        stack.wait_until_healthy(name)
        seconds = time.monotonic() - started
        time.sleep(AFTER_SECONDS)
    lost_runs, lost_versions = count_lost(done)
    return {
        "restarted": name,
        "seconds": round(seconds, 1),
        "requests": counts.total(),
        **{key: counts[key] for key in ("wrong", "failed", "refused")},
        "registered": len(done.versions),
        "registrations_failed": len(done.failed),
        "lost_runs": lost_runs,
        "lost_versions": lost_versions,
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
            rows.append(restart(stack, name))
            print(rows[-1], flush=True)
        print(table(rows))
        print(f"wrote {write('restarts', {'restarts': rows})}")
        if any(row["wrong"] + row["lost_runs"] + row["lost_versions"] for row in rows):
            raise UserError("something acknowledged was lost (see above)")


if __name__ == "__main__":
    main()
