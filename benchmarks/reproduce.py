"""Retrain in a clone of the last commit and compare every hash with the committed dvc.lock.

    make reproduce        python -m benchmarks.reproduce        (one core: taskset -c 0 make …)

The clone has an empty DVC cache and a store of its own, so every stage runs. Prints a certificate
and writes benchmarks/results/reproduce.json; exits with 1 if dvc.lock or a metric differs.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import write
from benchmarks.workspace import clone, environment, git
from registry.dvc_lock import read_lock

PACKAGES = ("torch", "numpy", "pandas", "scipy", "onnx", "onnxruntime", "safetensors", "dvc")


def describe_environment() -> dict[str, Any]:
    """Return what besides the CPU the hashes are computed with."""
    return {"system": platform.platform(), "packages": {name: version(name) for name in PACKAGES}}


def reproduce(folder: Path) -> dict[str, Any]:
    """Run the pipeline from nothing in a clone at `folder`; return the certificate.

    Raises:
        UserError: a stage failed.
    """
    clone(folder)
    started, command = time.monotonic(), [sys.executable, "-m", "dvc", "repro"]
    if subprocess.call(command, cwd=folder, env=environment()):
        raise UserError("dvc repro failed in the clone (see above)")
    changed = [line[3:] for line in git(folder, "status", "--porcelain").splitlines()]
    return {
        "commit": git(folder, "rev-parse", "HEAD").strip(),
        "equal": not changed,
        "seconds": round(time.monotonic() - started),
        "changed_files": changed,
        "outputs": read_lock(folder).merged("outs"),
        "environment": describe_environment(),
    }


def main() -> None:
    """Reproduce, print the certificate and write it; fail at a difference."""
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "clone"
        certificate = reproduce(folder)
        print(json.dumps(certificate, indent=2))
        write("reproduce", certificate)
        if not certificate["equal"]:
            print(git(folder, "diff", "dvc.lock", "metrics"))
            raise UserError(
                "this machine arrives at other bytes than dvc.lock",
                "docs/explanation/reproducibility.md lists where that is expected",
            )
        print("\nreproduced: every hash is the one in dvc.lock")


if __name__ == "__main__":
    main()
