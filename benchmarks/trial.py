"""One training from other params, from generate to evaluate, in a temporary folder and without DVC.

The benchmarks that train many models use it.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from arithmetic.errors import Problem
from benchmarks.module_run import in_folder

STAGES = ("generate", "train", "export", "evaluate")

Changes = dict[str, dict[str, Any]]


def trial(name: str, params: Path, changes: Changes, folder: Path | None = None) -> dict[str, Any]:
    """Run every stage on `params` with `changes`, section by section.

    Args:
        name: of the trial, for the message when it fails.
        folder: where to work; a temporary one if None.

    Returns:
        `evaluation` and `training` (the metrics), `seconds` of each stage.

    Raises:
        Problem: a stage fails.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            return trial(name, params, changes, Path(scratch))
    content = yaml.safe_load(params.read_text(encoding="utf-8"))
    for section, values in changes.items():
        content[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    seconds = {}
    for stage in STAGES:
        started = time.monotonic()
        try:
            in_folder(folder, f"stages.{stage}")
        except Problem as problem:
            raise Problem(f"{name}: {problem}") from problem
        seconds[stage] = round(time.monotonic() - started, 1)
    return {
        "evaluation": json.loads((folder / "metrics/evaluation.json").read_text()),
        "training": json.loads((folder / "metrics/training.json").read_text()),
        "seconds": seconds,
    }
