"""Compare a shortened pipeline's bytes between this CPU, an emulated Intel and an emulated AMD one.

    make reproduce-cpus        python -m benchmarks.reproduce_cpus [--quick] [--keep FOLDER]

Runs `benchmarks.reproduce_short` here, here with numpy's AVX2 code, and under QEMU as Haswell and
EPYC; exits with 1 if a hash differs. Writes benchmarks/results/reproduce-cpus.json, with the
operations of torch that were compared (`benchmarks.reproduce_operations`).

QEMU 7.2 computes numpy's AVX2 `argsort` wrongly, so emulated numpy runs without it; the second
native run covers that code.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arithmetic.artifacts import file_digest
from arithmetic.errors import UserError, cli_errors
from benchmarks.reproduce import describe_environment
from benchmarks.results_file import ROOT, code_digest, write
from benchmarks.workspace import environment
from registry.dvc_lock import md5, read_lock

QEMU = "qemu-x86_64"
AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"  # as numpy names its sets of instructions
SOURCES = (
    *("arithmetic/*.py", "stages/*.py", "benchmarks/reproduce*.py", "benchmarks/workspace.py"),
    *("params.yaml", "experiments/*.yaml", "hard_cases.csv", "model/*.json", "model/*.saf*"),
)


@dataclass(frozen=True)
class Cpu:
    """Describe one column of the table.

    Attributes:
        emulator: the command before `python`.
        numpy_without: sets of instructions that numpy does not use.
    """

    name: str
    emulator: tuple[str, ...] = ()
    numpy_without: str = ""


CPUS = (
    Cpu("this CPU"),
    Cpu("this CPU, numpy without AVX-512", numpy_without=AVX512),
    Cpu("Intel Haswell, emulated", (QEMU, "-cpu", "Haswell"), "X86_V3"),
    Cpu("AMD EPYC, emulated", (QEMU, "-cpu", "EPYC"), "X86_V3"),
)
QUICK_CPUS = (CPUS[0], *CPUS[2:])


def emulator_version() -> str:
    """Return QEMU's version; raise UserError without it."""
    if not shutil.which(QEMU):
        raise UserError(f"{QEMU} is not installed", "apt-get install qemu-user")
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def compute(cpu: Cpu, folder: Path, is_quick: bool, core: int) -> dict[str, Any]:
    """Return outputs.json of one CPU, computed in `folder` unless it is there.

    Raises:
        UserError: the pipeline failed there.
    """
    finished = folder / "outputs.json"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["taskset", "-c", str(core), *cpu.emulator, sys.executable]
        command += ["-m", "benchmarks.reproduce_short", str(folder)]
        command += ["--quick"] if is_quick else []
        variables = environment(
            PYTHONPATH=str(ROOT), NPY_DISABLE_CPU_FEATURES=cpu.numpy_without, LOKY_MAX_CPU_COUNT="1"
        )
        with (folder / "log").open("w") as log:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, stdout=log, stderr=log, check=False
            )
        if done.returncode:
            text = (folder / "log").read_text(errors="replace")
            raise UserError(f"the pipeline fails on {cpu.name}: {text[-3000:]}")
    print(f"computed on {cpu.name}", flush=True)
    content: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
    return content


def build_table(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return output to CPU to hash; "-" where a CPU has no such output."""
    names = sorted({name for result in results.values() for name in result["sha256"]})
    return {
        name: {cpu: result["sha256"].get(name, "-") for cpu, result in results.items()}
        for name in names
    }


def is_equal(row: dict[str, str]) -> bool:
    """Return whether all CPUs have one hash."""
    return len(set(row.values())) == 1


def compare_with_repository(folder: Path) -> dict[str, bool]:
    """Return whether data and decoders, which are not shortened, are those of the repository."""
    same = {}
    for name, locked in read_lock(ROOT).data.items():
        same[f"default-data/{name}"] = md5(folder / "default-data" / name) == locked
    for graph in (ROOT / "model").glob("decoders/*.onnx"):
        name = graph.relative_to(ROOT).as_posix()
        same[f"trained/{name}"] = file_digest(folder / "trained" / name) == file_digest(graph)
    return same


def compare(is_quick: bool, cpus: tuple[Cpu, ...], keep: Path | None = None) -> dict[str, Any]:
    """Compute on every CPU, as many at once as there are cores, and compare.

    Args:
        keep: keeps each CPU's outputs here, so that an interrupted comparison continues.
    """
    version, allowed = emulator_version(), sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        place = (keep / code_digest(*SOURCES) if keep else Path(scratch)).resolve()
        folders = [place / cpu.name.replace(" ", "-") for cpu in cpus]
        with ThreadPoolExecutor(len(allowed)) as pool:
            cores = [allowed[index % len(allowed)] for index in range(len(cpus))]
            jobs = pool.map(compute, cpus, folders, [is_quick] * len(cpus), cores)
            results = {cpu.name: result for cpu, result in zip(cpus, jobs, strict=True)}
        same = {} if is_quick else compare_with_repository(folders[0])
    outputs = build_table(results)
    operations = [set(result["operations"]) for result in results.values()]
    return {
        "quick": is_quick,
        "equal": all(map(is_equal, outputs.values())),
        "as_in_repository": same,
        "emulator": version,
        "cpus": {cpu.name: {"numpy_without": cpu.numpy_without.split()} for cpu in cpus},
        "environment": describe_environment(),
        "outputs": outputs,
        "operations": sorted(set.intersection(*operations)),
    }


def show(result: dict[str, Any]) -> str:
    """Return the table of outputs as text."""
    lines = [f"CPU {n + 1}: {name}" for n, name in enumerate(result["cpus"])]
    for name, row in result["outputs"].items():
        sign = "=" if is_equal(row) else "DIFFERS"
        if not result["as_in_repository"].get(name, True):
            sign += ", NOT AS IN THE REPOSITORY"
        lines.append(f"{name:48} {'  '.join(value[:10] for value in row.values())}  {sign}")
    return "\n".join(lines)


def main() -> None:
    """Compare, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce_cpus")
    parser.add_argument("--quick", action="store_true", help="operands 0-9 alone, no result")
    parser.add_argument("--keep", type=Path, help="keep and reuse each CPU's outputs in a folder")
    parser.add_argument("--result", default="reproduce-cpus", help="name of the result")
    options = parser.parse_args()
    with cli_errors():
        cpus = QUICK_CPUS if options.quick else CPUS
        result = compare(options.quick, cpus, options.keep)
        print(show(result))
        if not options.quick:
            write(options.result, result)
        if not result["equal"]:
            raise UserError("CPUs differ in the outputs marked above")
        if not all(result["as_in_repository"].values()):
            raise UserError("every CPU has the same bytes, and they are not the repository's")
        print(f"\n{len(result['outputs'])} outputs, equal on all {len(cpus)}")


if __name__ == "__main__":
    main()
