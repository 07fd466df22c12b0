"""`make clean` and `make gc` delete what nothing needs, when told to, and say so before."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.small import dvc_environment, git
from scripts import clean, gc
from tests.conftest import dvc


def objects(root: Path) -> set[str]:
    return {path.parent.name + path.name for path in (root / ".dvc/cache/files/md5").rglob("*/*")}


def run(root: Path, module: str, *arguments: str, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=root,
        env=dvc_environment() | more,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def data_of(root: Path, seed: int) -> set[str]:
    """Make the data of another seed; the hashes of its files."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["generate"]["seed"] = seed
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    dvc(root, "repro", "generate")
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    return {o["md5"] for o in lock["stages"]["generate"]["outs"] if o["path"].startswith("data/")}


@pytest.mark.slow
def test_gc_keeps_what_a_lock_a_commit_or_a_registered_version_names(workspace):
    dvc(workspace, "repro")  # seed 1 is recorded in the store, and in no commit
    stages = yaml.safe_load((workspace / "dvc.lock").read_text())["stages"].values()
    outs = {o["path"]: o["md5"].removesuffix(".dir") for s in stages for o in s.get("outs", [])}
    data = {md5 for path, md5 in outs.items() if path.startswith("data/")}
    registered = data | {md5 for path, md5 in outs.items() if path.startswith("bundle/")}
    committed = data_of(workspace, 2)
    git(workspace, "add", "-f", "params.yaml", "dvc.lock")  # a file that is not tracked yet too
    git(workspace, "commit", "-q", "-m", "seed 2")
    garbage = data_of(workspace, 3)
    present = data_of(workspace, 4)
    everything = objects(workspace)
    names = {name.removesuffix(".dir") for name in everything}
    assert registered | committed | garbage | present <= names

    status, words = run(workspace, "scripts.gc")
    assert status == 0, words
    assert "nothing was deleted" in words
    assert objects(workspace) == everything

    status, words = run(workspace, "scripts.gc", "--yes")
    assert status == 0, words
    kept = {name.removesuffix(".dir") for name in objects(workspace)}
    assert registered | committed | present <= kept
    assert not garbage & kept

    # Not by luck: without the store nothing names the data of seed 1.
    shutil.rmtree(workspace / "mlartifacts")
    assert run(workspace, "scripts.gc", "--yes")[0] == 0
    assert not data & objects(workspace)


def test_gc_deletes_nothing_where_a_lock_does_not_read(workspace):
    before = objects(workspace)
    (workspace / "dvc.lock").write_text("stages: [")
    status, words = run(workspace, "scripts.gc", "--yes")
    assert status == 1
    assert "does not read, so nothing is deleted" in words
    assert objects(workspace) == before


def test_gc_stops_where_it_cannot_see_the_versions(workspace):
    status, words = run(workspace, "scripts.gc", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert status == 1
    assert words.startswith("error: MLFLOW_TRACKING_URI names a server")


def test_old_checkpoints_go_unless_a_training_holds_them(tmp_path):
    folder = tmp_path / ".checkpoints"
    folder.mkdir()
    week_ago = time.time() - (gc.CHECKPOINT_DAYS + 1) * 86_400
    for name in ("old", "held", "new"):
        (folder / f"{name}.safetensors").touch()
        (folder / f"{name}.4711.draft").touch()
        (folder / f"{name}.lock").touch()
        if name != "new":
            for path in folder.glob(f"{name}.*"):
                os.utime(path, (week_ago, week_ago))
    (folder / "finished.lock").touch()
    os.utime(folder / "finished.lock", (week_ago, week_ago))
    with (folder / "held.lock").open("r") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert gc.old_checkpoints(tmp_path, time.time()) == [
            folder / "finished.lock",
            folder / "old.4711.draft",
            folder / "old.lock",
            folder / "old.safetensors",
        ]


def test_clean_deletes_caches_only_and_only_when_told(tmp_path):
    kept = ["data/train.csv", ".dvc/cache/x", "mlartifacts/__pycache__/x", ".venv/__pycache__/x"]
    gone = [".mypy_cache/x", "stages/__pycache__/x.pyc", "tests/deep/__pycache__/x.pyc"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    root = Path(clean.__file__).parents[1]
    status, words = run(tmp_path, "scripts.clean", PYTHONPATH=str(root))
    assert status == 0, words
    assert "nothing was deleted" in words
    assert all((tmp_path / name).exists() for name in kept + gone)
    for name in (".mypy_cache", "stages/__pycache__", "tests/deep/__pycache__"):
        assert name in words
    run(tmp_path, "scripts.clean", "--yes", PYTHONPATH=str(root))
    assert all((tmp_path / name).exists() for name in kept)
    assert not any((tmp_path / name).exists() for name in gone)
