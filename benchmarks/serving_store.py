"""A throw-away MLflow store that holds the committed models, and the server over it.

Version 1 is the `+ -` model and Production, version 2 the one for four operations: recorded and
promoted by the project's own commands, so that what is measured came the way that a user's comes.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.module_run import ROOT, in_folder
from scripts.tracking_server import tracking_server

FOUR = "four-operations"
REGISTRY_HELP = "address of a server over such a store, instead of one that is made for this"


def recorded(folder: Path, four_operations: bool = True) -> Path:
    """Record the committed pipelines into a store in `folder`; returns `folder`.

    A fresh clone has no data sets (they are in DVC's cache only), so what dvc.lock says of
    `generate` is left out.
    """
    _copy(ROOT, folder)
    in_folder(folder, "registry.record")
    in_folder(folder, "registry.promote", "1")
    if four_operations:
        _copy(ROOT / FOUR, folder / FOUR)
        in_folder(folder / FOUR, "registry.record")
    return folder


@contextmanager
def registry(given: str = "", four_operations: bool = True) -> Iterator[str]:
    """A real `mlflow server` over such a store; yields its address, or `given`, if there is one."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-bench-") as scratch:
        folder = recorded(Path(scratch).resolve(), four_operations)
        with tracking_server(folder) as uri:
            yield uri


def _copy(project: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(project / name, folder)
    for name in ("bundle", "metrics"):
        shutil.copytree(project / name, folder / name)
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    del lock["stages"]["generate"]
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
