"""A module of this project run in another folder, as `python -m MODULE` there."""

import os
import subprocess
import sys
from pathlib import Path

from arithmetic.errors import Problem

ROOT = Path(__file__).resolve().parents[1]


def in_folder(folder: Path, module: str, *arguments: str) -> None:
    """Run it to its end, with the folder's own default store.

    Raises:
        Problem: it failed; the sentence ends with its last words.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(f"{module} failed in {folder}: {(done.stdout + done.stderr).strip()[-500:]}")
