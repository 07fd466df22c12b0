"""Finished pipelines to record, and changes to them that keep dvc.lock true."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from arithmetic import bundle
from arithmetic.checksum import md5
from registry import store, workspace


def fresh(workspace: Path, into: Path) -> Path:
    """A copy of the finished pipeline with an empty store of its own beside it."""
    root = into / "checkout"
    shutil.copytree(
        workspace, root, ignore=shutil.ignore_patterns(".dvc", ".git", "mlflow.db", "mlartifacts")
    )
    assert store.root(root) == root.resolve(), "the test would write to another store"
    shutil.copyfile(_empty_store(), root / "mlflow.db")
    return root


def empty_store(folder: Path) -> None:
    """Put a store without content into a folder, which becomes the root of a repository."""
    (folder / "dvc.yaml").write_text("stages: {}\n")
    shutil.copyfile(_empty_store(), folder / "mlflow.db")


def digest_of(root: Path) -> tuple[str, str]:
    """The digests of the run and of the bundle that are in a workspace."""
    found = workspace.read(root)
    return found.run_digest, found.bundle_sha256


@functools.cache
def _empty_store() -> Path:
    """A store with its schema and no content: making one takes seconds, copying it none."""
    folder = Path(tempfile.mkdtemp(prefix="arithmetic-lm-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "dvc.lock").touch()
    with store.opened(folder) as client:
        client.search_experiments()
    return folder / "mlflow.db"


def another_model(root: Path) -> str:
    """Let the pipeline have ended in another bundle; returns its digest.

    One byte of the weights changes, and with it every digest. The graph answers as before.
    """
    weights = root / "bundle" / bundle.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    content.append(content[-1])
    weights.write_bytes(bytes(content))
    digest = bundle.digest(root / "bundle")
    evaluated(root, bundle_sha256=digest)
    return digest


def evaluated(root: Path, **changes: Any) -> None:
    """Let the evaluation have found something else."""
    path = root / "metrics" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))
    relock(root)


def with_errors(root: Path, count: int) -> None:
    """Let the evaluation have found `count` wrong answers, all of them sums of small numbers."""
    found = json.loads((root / "metrics" / "evaluation.json").read_text())
    by_operation = {**found["by_operation"]}
    for index, operation in enumerate(by_operation):
        by_operation[operation] = {**by_operation[operation], "errors": 0 if index else count}
    first = next(iter(by_operation))
    failures = [
        {"equation": f"{number}{first}1=", "expected": "?", "answer": "?"}
        for number in range(count)
    ]
    evaluated(root, errors=count, by_operation=by_operation, first_failures=failures)


def relock(root: Path) -> None:
    """Make the stages' notes and dvc.lock say what is on the disk, as a run of them would."""
    for note in (root / "metrics" / "reads").glob("*.json"):
        content = json.loads(note.read_text())
        for entry in content["files"]:
            if (root / entry["path"]).exists():
                entry["md5"] = md5(root / entry["path"])
        note.write_text(json.dumps(content, indent=2))
    path = root / "dvc.lock"
    lock = yaml.safe_load(path.read_text())
    for stage in lock["stages"].values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
            if (root / entry["path"]).exists():
                entry["md5"] = md5(root / entry["path"])
    path.write_text(yaml.safe_dump(lock))
