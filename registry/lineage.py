"""Print and check every link from a served answer back to its data and code.

    python -m registry.lineage [VERSION]       Production, if no version is given

    answer -> version -> model files -> run -> dvc.lock -> commit -> code and data

With SERVICE_URL set it starts at the version that the service answers with. Each digest is computed
from the bytes that are there. A line with `?` is a link that cannot be checked here, such as an
experiment that is in no commit; a broken link ends it with exit status 1.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arithmetic.errors import InvalidModelError, InvalidParamsError, cli_errors
from registry import DIGEST_TAG, MODEL_NAME, REPORT_PATH, REPORT_TAG, RUN_TAG, commits
from registry.client import open_client, registry_errors, repository_root
from registry.download import download, get_version, resolve
from registry.dvc_lock import DvcLock, md5, md5_of_bytes, parse_lock
from registry.exceptions import BrokenLineageError, StaleWorkspaceError
from registry.service_health import get_health

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_REPAIR = "check out its commit, delete the run in MLflow and run `dvc repro`"


class Evaluation(NamedTuple):
    """Hold a version's latest evaluation: its run, the run's dvc.lock, and the report."""

    run: "Run"
    lock: DvcLock
    report: dict[str, Any]


def get_evaluation(client: "MlflowClient", version: "ModelVersion") -> Evaluation:
    """Return the evaluation that a version points at.

    Raises:
        BrokenLineageError: there is none, it was edited, or it is of another model.
    """
    run_id = version.tags.get(REPORT_TAG)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id = '{run_id}'")
    if not runs:
        message = f"version {version.version} has no evaluation: run {run_id} is not in the store"
        raise BrokenLineageError(message, _REPAIR)
    try:
        lock = parse_lock(_read_artifact(client, runs[0], "dvc.lock"), f"dvc.lock of run {run_id}")
    except (InvalidParamsError, StaleWorkspaceError) as error:
        raise BrokenLineageError(error.message, _REPAIR) from error
    _check_link("run -> dvc.lock", lock.digest, runs[0].data.tags.get(RUN_TAG))
    content = _read_artifact(client, runs[0], REPORT_PATH)
    _check_link("dvc.lock -> evaluation", md5_of_bytes(content), lock.outs[REPORT_PATH])
    report: dict[str, Any] = json.loads(content)
    _check_link("evaluation -> version", report["model_digest"], version.tags.get(DIGEST_TAG))
    return Evaluation(runs[0], lock, report)


def _read_artifact(client: "MlflowClient", run: "Run", path: str) -> bytes:
    run_id = run.info.run_id
    if path not in {info.path for info in client.list_artifacts(run_id, os.path.dirname(path))}:
        raise BrokenLineageError(f"run {run_id} holds no {path}", _REPAIR)
    with tempfile.TemporaryDirectory() as scratch:
        return Path(client.download_artifacts(run_id, path, scratch)).read_bytes()


def _check_link(ends: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise BrokenLineageError(f"{ends}: {actual} and not {expected}", _REPAIR)


def check_links(root: Path, number: str | None = None, service_url: str = "") -> Iterator[str]:
    """Yield a line for each link of a version, checked before it is yielded.

    Args:
        root: the repository, in which commits and data are looked for.
        number: of the version; None means the one served, else Production.
        service_url: address of a running service, or empty.

    Raises:
        BrokenLineageError: two ends of a link differ.
        VersionNotFoundError, RegistryError: from the store or the service.
    """
    client = open_client()
    health = get_health(service_url) if service_url else {}
    version = get_version(client, number or health.get("model_version"))
    title, model_digest = f"version {version.version}", version.tags.get(DIGEST_TAG)
    if service_url:
        served = (health.get("model_version"), health.get("model_digest"))
        _check_link("answer -> version", served, (str(version.version), model_digest))
        yield _line("answer -> version", f"{service_url} serves {title}")
    evaluation = get_evaluation(client, version)
    with tempfile.TemporaryDirectory() as scratch:
        ref = resolve(f"models:/{MODEL_NAME}/{version.version}")
        try:
            directory = download(ref, Path(scratch))
        except InvalidModelError as error:
            raise BrokenLineageError(f"version -> model: {error}", error.hint) from error
        yield _line("version -> model", f"{title} holds model {model_digest}")
        for path, locked in evaluation.lock.outs.items():
            if path.startswith("model/"):
                present = md5(directory / path.removeprefix("model/"))
                _check_link(f"dvc.lock -> {path}", present, locked)
    run = evaluation.run.info
    yield _line("version -> run", f"run {run.run_id} ({run.run_name}) evaluated that model")
    yield _line("run -> dvc.lock", f"digest {evaluation.lock.digest}; it names those model files")
    yield from _commit_links(root, evaluation)
    for path, locked in evaluation.lock.data.items():
        cached = root / ".dvc" / "cache" / "files" / "md5" / locked[:2] / locked[2:]
        if cached.is_file() and md5(cached) != locked:
            message = f"dvc.lock -> data: {cached} is damaged: MD5 {md5(cached)}"
            raise BrokenLineageError(message, "delete it")
        # A workspace with other data is no fault of this version.
        is_here = cached.is_file() or ((root / path).is_file() and md5(root / path) == locked)
        text = f"{path} {locked}{'' if is_here else ' is not on this disk'}"
        yield _line("dvc.lock -> data", text, is_here)


def _commit_links(root: Path, evaluation: Evaluation) -> Iterator[str]:
    commit = commits.find_commit(root, evaluation.lock)
    if commit is None:
        tags = evaluation.run.data.tags
        base = tags.get("mlflow.source.git.commit", "no commit")
        text = f"run {evaluation.run.info.run_name} is in no commit here; made on {base}"
        yield _line("dvc.lock -> commit", text, False)
        return
    yield _line("dvc.lock -> commit", commit)
    changed = commits.changed_files(root, commit, evaluation.lock)
    if changed:
        raise BrokenLineageError(
            f"commit -> code: {', '.join(changed)} of {commit[:12]} is not what dvc.lock names",
            "the code was edited while a stage ran: run `dvc repro` and commit",
        )
    yield _line("commit -> code", "each file as dvc.lock names it")


def _line(ends: str, values: str, is_checked: bool = True) -> str:
    return f"{'=' if is_checked else '?'} {ends:<20} {values}"


def main() -> None:
    """Print the links, one a line."""
    parser = argparse.ArgumentParser(prog="python -m registry.lineage")
    parser.add_argument("version", nargs="?", help="its number; Production if left out")
    number, service_url = parser.parse_args().version, os.environ.get("SERVICE_URL", "")
    with cli_errors(), registry_errors():
        for line in check_links(repository_root(), number, service_url):
            print(line, flush=True)


if __name__ == "__main__":
    main()
