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


def compare(hashes: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Turn side to output to hash into output to side to hash; "-" where a side has no output."""
    names = sorted({name for part in hashes.values() for name in part})
    return {name: {side: part.get(name, "-") for side, part in hashes.items()} for name in names}


def is_equal(row: dict[str, str]) -> bool:
    """Return whether all hashes of an output are equal."""
    return len(set(row.values())) == 1


def show(outputs: dict[str, dict[str, str]]) -> str:
    """Return outputs and the first digits of their hashes as text."""
    return table(
        [
            {"output": name, **{side: text[:12] for side, text in row.items()}}
            | {"": "=" if is_equal(row) else "DIFFERS"}
            for name, row in outputs.items()
        ]
    )


def reproduce(folder: Path) -> dict[str, Any]:
    """Run the pipeline from nothing in a clone at `folder`; return the certificate.

    Raises:
        UserError: a stage failed.
    """
    clone(folder)
    expected = read_lock(folder).outs
    started, command = time.monotonic(), [sys.executable, "-m", "dvc", "repro"]
    if subprocess.call(command, cwd=folder, env=environment()):
        raise UserError("dvc repro failed in the clone (see above)")
    outputs = compare({"expected": expected, "actual": read_lock(folder).outs})
    changed = [line[3:] for line in git(folder, "status", "--porcelain").splitlines()]
    return {
        "commit": git(folder, "rev-parse", "HEAD").strip(),
        "equal": not changed and all(map(is_equal, outputs.values())),
        "seconds": round(time.monotonic() - started),
        "changed_files": changed,
        "outputs": outputs,
        "environment": describe_environment(),
    }


def main() -> None:
    """Reproduce, print the certificate and write it; fail at a difference."""
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        certificate = reproduce(Path(scratch) / "clone")
        print(json.dumps({**certificate, "outputs": "below"}, indent=2))
        print(show(certificate["outputs"]))
        write("reproduce", certificate)
        if not certificate["equal"]:
            raise UserError(
                "this machine arrives at other bytes than dvc.lock",
                "docs/explanation/reproducibility.md lists where that is expected",
            )
        print("\nreproduced: every hash is the one in dvc.lock")


if __name__ == "__main__":
    main()
