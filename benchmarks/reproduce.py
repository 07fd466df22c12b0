"""make reproduce: does a fresh clone arrive at the hashes in dvc.lock?

Clones the last commit to a temporary folder with an empty DVC cache, runs `dvc repro --force`
there, and prints a certificate: every output's hash, expected and got, and what it was computed
with. Ends with status 1 if one differs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from arithmetic.errors import Problem, reported
from benchmarks.results_file import machine, write

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "pandas", "onnx", "onnxruntime", "safetensors", "dvc")
# Of what /proc/cpuinfo lists, the sets that numeric libraries choose their code by.
INSTRUCTION_SETS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16")


def outputs(lock: Path) -> dict[str, str]:
    """Path to hash of everything that the stages wrote, from a dvc.lock."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        out["path"]: out[out["hash"]] for stage in stages.values() for out in stage.get("outs", [])
    }


def instruction_sets() -> list[str]:
    """Those of INSTRUCTION_SETS that this CPU has; empty where /proc/cpuinfo does not tell."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return [name for name in INSTRUCTION_SETS if name in flags]


def environment() -> dict[str, Any]:
    """What the hashes were computed with."""
    import stages

    return {
        **machine(),
        "instruction_sets": instruction_sets(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "settings": stages.REPRODUCIBLE_ENVIRONMENT,
        "threads_a_process": int(stages.REPRODUCIBLE_ENVIRONMENT["OMP_NUM_THREADS"]),
    }


def compared(expected: dict[str, str], got: dict[str, str]) -> dict[str, dict[str, str]]:
    """Output to both hashes; "-" where one side does not have it."""
    return {
        path: {"expected": expected.get(path, "-"), "got": got.get(path, "-")}
        for path in sorted(expected | got)
    }


def reproduce(project: str, cpus: set[int] | None) -> dict[str, Any]:
    """Run the pipeline of `project` (a folder of the repository) in a clone.

    Args:
        cpus: the cores it may use; None for all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "-q", "--local", str(ROOT), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
        ).stdout.strip()
        folder = clone / project
        expected = outputs(folder / "dvc.lock")
        variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        variables["PYTHONPATH"] = str(clone)
        variables.pop("MLFLOW_TRACKING_URI", None)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--force"],
            cwd=folder,
            env=variables,
            check=False,
            preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
        )
        if done.returncode:
            raise Problem("dvc repro failed in the clone; its own words are above")
        rows = compared(expected, outputs(folder / "dvc.lock"))
    return {
        "commit": commit,
        "equal": all(row["expected"] == row["got"] for row in rows.values()),
        "cores_allowed": len(cpus) if cpus else machine()["cores"],
        "outputs": rows,
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Reproduce dvc.lock in a fresh clone.")
    parser.add_argument("--project", default=".", help="a folder with a dvc.yaml")
    parser.add_argument("--cores", type=int, help="use only so many")
    parser.add_argument("--result", default="reproduce", help="name of the result")
    given = parser.parse_args()
    with reported():
        cpus = None
        if given.cores:
            cpus = set(sorted(os.sched_getaffinity(0))[: given.cores])
        certificate = reproduce(given.project, cpus)
        print(json.dumps(certificate["environment"], indent=2))
        print(f"\ncommit {certificate['commit']}")
        print(f"\n{'output':34} {'expected':36} {'got':36}")
        for path, row in certificate["outputs"].items():
            sign = "=" if row["expected"] == row["got"] else "DIFFERS"
            print(f"{path:34} {row['expected']:36} {row['got']:36} {sign}")
        write(given.result, certificate)
        if not certificate["equal"]:
            raise Problem(
                "this machine arrives at other bytes than dvc.lock; docs/reproducibility.md says "
                "where that is to be expected"
            )
        print("\nreproduced: every hash is the one in dvc.lock")


if __name__ == "__main__":
    main()
