"""Run the pipeline with each combination of params as a task of a Ray cluster.

    RAY_ADDRESS=HOST:6379 make sweep SET='train.seed=1,2 train.weight_decay=0.02,0.05'

A setting is written as for `dvc exp run --queue -S`. The nodes get this repository's tracked files
as they are now, and need the packages of the lock files. What they return is registered here, each
combination as a run of its own below one parent run. A task whose worker or node is lost runs
again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arithmetic.errors import UserError, cli_errors
from registry.client import open_client, registry_errors, user_name
from registry.commits import git
from registry.dvc_lock import read_lock, read_yaml
from registry.record import Recorded, record
from scripts.experiment import ROOT
from stages.cluster import connect
from stages.params import validate_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

RETRIES = 3  # of a task whose worker or node was lost
Files = dict[str, bytes]  # content by path
CONFIG = "[core]\n    no_scm = true\n[cache]\n    dir = ../cache\n"


def combine(settings: list[str]) -> dict[str, str]:
    """Return the content of params.yaml for each combination, by the params that it sets.

    Raises:
        UserError: a setting is not of DVC's syntax, or sets something that is not a param.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
    from hydra.errors import HydraException

    contents = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "params.yaml")
        try:
            for combination in get_hydra_sweeps({path.name: settings}):
                shutil.copy(ROOT / path.name, path)
                apply_overrides(str(path), combination[path.name])
                validate_params(read_yaml(path), path.name)
                contents[" ".join(combination[path.name])] = path.read_text(encoding="utf-8")
        except (DvcException, HydraException) as error:
            message = str(error.__cause__ or error).splitlines()[0]
            raise UserError(message, "write settings like train.seed=1,2") from error
    return contents


def run_pipeline(params: str) -> Files:
    """Run all stages but `register` in a copy of the working directory; return what they write.

    Raises:
        UserError: a stage failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "workspace")
        shutil.copytree(Path.cwd(), folder)
        (folder / "params.yaml").write_text(params, encoding="utf-8")
        (folder / ".dvc" / "config.local").write_text(CONFIG, encoding="utf-8")
        # The task has one CPU of the cluster, and the stages do not start tasks of their own.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "evaluate"],
            cwd=folder,
            env={**environment, "LOKY_MAX_CPU_COUNT": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError((done.stdout + done.stderr).strip()[-2000:])
        names = ("params.yaml", "dvc.lock", *read_lock(folder).outs)
        paths = [path for name in names for path in (folder / name, *(folder / name).rglob("*"))]
        return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}


def register(files: Files) -> Recorded:
    """Register what a task returned."""
    temporary = ROOT / ".dvc" / "tmp"  # where git finds the commit of the repository
    temporary.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=temporary) as folder:
        write(files, folder)
        return record(Path(folder))


def write(files: Files, folder: str) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def create_parent(client: "MlflowClient", child: str, settings: list[str]) -> str:
    """Create the run that describes the sweep, beside the run `child`; return its id."""
    experiment = client.get_run(child).info.experiment_id
    tags = {"mlflow.user": user_name(), "mlflow.source.name": "make sweep"}
    run = client.create_run(experiment, tags=tags, run_name=f"sweep {' '.join(settings)}")
    for setting in settings:
        name, _, values = setting.partition("=")
        client.log_param(run.info.run_id, name, values)
    return run.info.run_id


def register_all(pending: dict[Any, str], settings: list[str]) -> int:
    """Register what each task returns below one parent run; return how many tasks failed."""
    import ray

    client, parent, failed = open_client(), "", 0
    try:
        while pending:
            (ready,), _ = ray.wait([*pending])
            try:
                recorded = register(ray.get(ready))
                parent = parent or create_parent(client, recorded.run_id, settings)
                client.set_tag(recorded.run_id, "mlflow.parentRunId", parent)
                print(f"{pending[ready]}: {recorded}", flush=True)
            except ray.exceptions.RayError as error:
                failed += 1
                cause = getattr(error, "cause", error)
                print(f"{pending[ready]} failed: {cause}", file=sys.stderr)
            del pending[ready]
    finally:
        if parent:
            client.set_terminated(parent, "FAILED" if pending or failed else "FINISHED")
    return failed


@registry_errors()
def run(settings: list[str]) -> None:
    """Run all combinations.

    Raises:
        UserError: there is no cluster, a setting is wrong, or some combinations failed.
    """
    if not (address := os.environ.get("RAY_ADDRESS")):
        hint = "set it, or use `dvc exp run --queue` on this machine"
        raise UserError("RAY_ADDRESS names no Ray cluster", hint)
    combinations = combine(settings)
    if (listing := git(ROOT, "ls-files", "-z")) is None:
        raise UserError(f"{ROOT} is not a git repository", "run `git init`, then `git commit`")
    names = listing.decode().split("\0")
    with tempfile.TemporaryDirectory() as workspace:
        tracked = {name: ROOT / name for name in names if (ROOT / name).is_file()}
        write({name: path.read_bytes() for name, path in tracked.items()}, workspace)
        with connect(address, Path(workspace)):
            import ray

            options = {"max_retries": RETRIES, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
            task = ray.remote(**options)(run_pipeline)
            pending = {task.remote(params): name for name, params in combinations.items()}
            failed = register_all(pending, settings)
    if failed:
        message = f"{failed} of {len(combinations)} runs failed (see above)"
        raise UserError(message, "run the sweep again: what is registered stays")


def main() -> None:
    """Run one sweep."""
    parser = argparse.ArgumentParser(prog="python -m scripts.sweep")
    parser.add_argument("settings", nargs="+", help="such as train.seed=range(1,5)")
    with cli_errors():
        run(parser.parse_args().settings)


if __name__ == "__main__":
    main()
