"""make reproduce-cpus: does another CPU arrive at the same bytes?

Runs a shortened pipeline (`benchmarks.reproduce_short`) on this CPU and on an Intel Haswell and an
AMD EPYC that QEMU emulates, and compares the SHA-256 of every output. Ends with status 1 if one
differs. The result file also lists the operations of torch that trained: what the guard in
tests/test_operations.py knows as verified.

QEMU 7.2 computes numpy's AVX2 `argsort` wrongly: what comes back is not sorted, while the same code
sorts on a real CPU. Emulated, numpy therefore runs without it, and a second native run without
AVX-512 has numpy take its AVX2 code on a real CPU.
"""

import argparse
import hashlib
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

from arithmetic.errors import Problem, reported
from benchmarks.reproduce import environment, outputs
from benchmarks.results_file import write
from benchmarks.sources import digest

ROOT = Path(__file__).resolve().parents[1]
QEMU = "qemu-x86_64"
# What decides the outputs: a kept one of other code would be compared as if it were of this.
SOURCES = (
    "arithmetic/*.py",
    "stages/*.py",
    "benchmarks/reproduce*.py",
    "benchmarks/small.py",
    "params.yaml",
    "four-operations/params.yaml",
)
NUMPY = "NPY_DISABLE_CPU_FEATURES"
AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"


@dataclass(frozen=True)
class Cpu:
    """One column of the table.

    Attributes:
        command: what stands before `python`.
        numpy_without: sets of instructions that numpy does not use.
    """

    name: str
    command: tuple[str, ...] = ()
    numpy_without: str = ""


NATIVE = Cpu("this CPU")
CPUS = (
    NATIVE,
    Cpu("this CPU, numpy by AVX2", numpy_without=AVX512),
    Cpu("Intel Haswell, emulated", (QEMU, "-cpu", "Haswell"), "X86_V3"),
    Cpu("AMD EPYC, emulated", (QEMU, "-cpu", "EPYC"), "X86_V3"),
)


def emulator() -> str:
    """QEMU's version; raises Problem without it."""
    if not shutil.which(QEMU):
        raise Problem(
            f"{QEMU} is missing, which emulates the other CPUs; `apt-get install qemu-user` "
            "brings it"
        )
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def computed(cpu: Cpu, folder: Path, quick: bool, core: int) -> dict[str, Any]:
    """outputs.json of one CPU, made in `folder` on one core unless it is there.

    Raises:
        Problem: the pipeline fails there.
    """
    finished = folder / "outputs.json"
    if finished.exists():
        print(f"computed before on {cpu.name}", flush=True)
        return read(finished)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), NUMPY: cpu.numpy_without}
    command = [*cpu.command, sys.executable, "-m", "benchmarks.reproduce_short", str(folder)]
    command += ["--core", str(core), *(["--quick"] if quick else [])]
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Problem(
            f"the pipeline fails on {cpu.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    print(f"computed on {cpu.name}", flush=True)
    return read(finished)


def read(finished: Path) -> dict[str, Any]:
    """outputs.json of one CPU."""
    content: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
    return content


def compared(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Output to CPU to hash; a CPU that did not compute an output has "-" there."""
    names = sorted({name for result in results.values() for name in result["sha256"]})
    return {
        name: {cpu: result["sha256"].get(name, "-") for cpu, result in results.items()}
        for name in names
    }


def equal(row: dict[str, str]) -> bool:
    return len(set(row.values())) == 1


def committed(folder: Path, hashes: dict[str, str]) -> dict[str, bool]:
    """Outputs that the repository has as well, and whether they are its bytes.

    Data sets and their summary by dvc.lock, serving graphs by the committed files.
    """
    same = {}
    for name, project in (("default", ROOT), ("four-operations", ROOT / "four-operations")):
        for path, md5 in outputs(project / "dvc.lock").items():
            copy = folder / name / Path(path).name
            if copy.suffix == ".csv" and copy.is_file():
                got = hashlib.md5(copy.read_bytes(), usedforsecurity=False).hexdigest()
                same[f"{name}/data/{copy.name}"] = got == md5
        for graph in (project / "bundle" / "decoders").glob("*.onnx"):
            key = f"{name}/committed/decoders/{graph.name}"
            if key in hashes:
                same[key] = hashlib.sha256(graph.read_bytes()).hexdigest() == hashes[key]
    return same


def compare(quick: bool, cpus: tuple[Cpu, ...] = CPUS, kept: Path | None = None) -> dict[str, Any]:
    """Run everything and compare; as many at once as there are cores.

    Args:
        kept: a folder for what each CPU computed, so that an ended comparison can be gone on with;
            by default it is gone afterwards.
    """
    allowed = sorted(os.sched_getaffinity(0))
    version = emulator()
    with tempfile.TemporaryDirectory() as scratch:
        place = (kept / digest(*SOURCES) if kept else Path(scratch)).resolve()
        folders = {cpu: place / str(index) for index, cpu in enumerate(cpus)}
        with ThreadPoolExecutor(len(allowed)) as pool:
            jobs = {
                cpu.name: pool.submit(
                    computed, cpu, folders[cpu], quick, allowed[index % len(allowed)]
                )
                for index, cpu in enumerate(cpus)
            }
            results = {name: job.result() for name, job in jobs.items()}
        same = {} if quick else committed(folders[cpus[0]], results[cpus[0].name]["sha256"])
    rows = compared(results)
    operations = {name: set(result["operations"]) for name, result in results.items()}
    return {
        "quick": quick,
        "equal": all(map(equal, rows.values())),
        "as_committed": all(same.values()),
        "emulator": version,
        "cpus": {
            cpu.name: {
                "numpy_without": cpu.numpy_without.split(),
                "torch_capability": results[cpu.name]["capability"],
            }
            for cpu in cpus
        },
        "environment": environment(),
        "outputs": rows,
        "committed": same,
        "operations": sorted(set.intersection(*operations.values())),
    }


def table(result: dict[str, Any]) -> str:
    """CPU × output × equal."""
    lines = []
    for name, row in result["outputs"].items():
        sign = "=" if equal(row) else "DIFFERS"
        if name in result["committed"]:
            sign += ", as committed" if result["committed"][name] else ", NOT AS COMMITTED"
        shown = "  ".join(value[:12] for value in row.values())
        lines.append(f"{name:46} {shown}  {sign}")
    heads = [f"{'output':46} {'  '.join(f'CPU {n + 1:<8}' for n in range(len(result['cpus'])))}"]
    names = [f"CPU {n + 1}: {name}" for n, name in enumerate(result["cpus"])]
    return "\n".join([*names, "", *heads, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a shortened pipeline between CPUs.")
    parser.add_argument("--quick", action="store_true", help="a few steps, as CI does")
    parser.add_argument("--result", help="name of the result (reproduce-cpus; none when quick)")
    parser.add_argument("--keep", type=Path, help="keep and reuse each CPU's outputs in a folder")
    given = parser.parse_args()
    with reported():
        result = compare(given.quick, kept=given.keep)
        print(table(result))
        name = given.result or ("" if given.quick else "reproduce-cpus")
        if name:
            write(name, result)
        if not result["equal"]:
            raise Problem("CPUs differ in the outputs marked above")
        if not result["as_committed"]:
            raise Problem("every CPU has the same bytes, and they are not those of the repository")
        print(f"\n{len(result['outputs'])} outputs, equal on all {len(result['cpus'])}")


if __name__ == "__main__":
    main()
