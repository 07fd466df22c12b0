"""Retrain in a clone of the last commit and compare every hash with the committed dvc.lock.

    make reproduce        python -m benchmarks.reproduce        (one core: taskset -c 0 make …)

The clone has an empty DVC cache and a store of its own, so every stage runs. Prints a certificate
and writes benchmarks/results/reproduce.json; exits with 1 if an output or a committed file differs.
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
from benchmarks.results_file import machine, table, write
from benchmarks.workspace import clone, environment, git
from registry.dvc_lock import read_lock
from stages import REPRODUCIBLE_ENVIRONMENT

PACKAGES = ("torch", "numpy", "pandas", "scipy", "onnx", "onnxruntime", "safetensors", "dvc")
# Of the flags in /proc/cpuinfo those by which numeric libraries choose their code.
INSTRUCTION_SETS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16")


def describe_environment() -> dict[str, Any]:
    """Return what the hashes are computed with."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return {
        **machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "settings": REPRODUCIBLE_ENVIRONMENT,
    }


def compare(expected: dict[str, str], actual: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return both hashes of each output; "-" where one side does not have it."""
    return {
        path: {"expected": expected.get(path, "-"), "actual": actual.get(path, "-")}
        for path in sorted(expected | actual)
    }


def reproduce(folder: Path) -> dict[str, Any]:
    """Run the pipeline from nothing in a clone at `folder`; return the certificate.

    Raises:
        UserError: a stage failed.
    """
    clone(folder)
    expected = read_lock(folder).merged("outs")
    started, command = time.monotonic(), [sys.executable, "-m", "dvc", "repro"]
    if subprocess.call(command, cwd=folder, env=environment()):
        raise UserError("dvc repro failed in the clone (see above)")
    outputs = compare(expected, read_lock(folder).merged("outs"))
    changed = [line[3:] for line in git(folder, "status", "--porcelain").splitlines()]
    return {
        "commit": git(folder, "rev-parse", "HEAD").strip(),
        "equal": not changed and all(row["expected"] == row["actual"] for row in outputs.values()),
        "seconds": round(time.monotonic() - started),
        "changed_files": changed,
        "outputs": outputs,
        "environment": describe_environment(),
    }


def show(certificate: dict[str, Any]) -> str:
    rows = [
        {"output": path, **row, "": "=" if row["expected"] == row["actual"] else "DIFFERS"}
        for path, row in certificate["outputs"].items()
    ]
    changed = [f"committed file changed: {name}" for name in certificate["changed_files"]]
    headline = f"\ncommit {certificate['commit']}, {certificate['seconds']} seconds\n"
    text = json.dumps(certificate["environment"], indent=2)
    return "\n".join([text, headline, table(rows), *changed])


def main() -> None:
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        certificate = reproduce(Path(scratch) / "clone")
        print(show(certificate))
        write("reproduce", certificate)
        if not certificate["equal"]:
            raise UserError(
                "this machine arrives at other bytes than dvc.lock",
                "docs/explanation/reproducibility.md lists where that is expected",
            )
        print("\nreproduced: every hash is the one in dvc.lock")


if __name__ == "__main__":
    main()
