"""Compare shortened pipelines' bytes between this CPU, an emulated Intel and an emulated AMD one.

    make reproduce-cpus        python -m benchmarks.reproduce_cpus [--quick]

Runs the pipelines here, here with numpy's AVX2 code, and under QEMU as Haswell and EPYC, and hashes
all that they write; exits with 1 if a hash differs. The stages are the real ones; only counts are
smaller. Data and decoders, which are not shortened, are compared with the repository's, too. Writes
benchmarks/results/reproduce-cpus.json.

QEMU 7.2 computes numpy's AVX2 `argsort` wrongly, so emulated numpy runs without it; the second
native run covers that code. Each CPU's pipelines run in one process (`--into FOLDER`), because a
process that an emulated one starts would run on the real CPU.
"""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pandas as pd

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.reproduce import describe_environment
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import TINY, Changes, merge, run
from registry.dvc_lock import md5, read_lock, read_yaml
from stages import MODEL
from stages.workers import set_deterministic

QEMU = "qemu-x86_64"
# Name, command before `python`, and the sets of instructions that numpy does not use.
CPUS = {
    "this CPU": ("", ""),
    "this CPU, numpy without AVX-512": ("", "X86_V4 AVX512_ICL AVX512_SPR"),
    "Intel Haswell, emulated": (f"{QEMU} -cpu Haswell", "X86_V3"),
    "AMD EPYC, emulated": (f"{QEMU} -cpu EPYC", "X86_V3"),
}


class Pipeline(NamedTuple):
    """Describe one shortened pipeline: changed params, the stages, and an experiment file."""

    changes: Changes
    stages: str = "generate train export evaluate"
    experiment: str = ""


FEW_STEPS = {"warmup_steps": 1, "flat_steps": 1, "decay_steps": 2, "validate_every": 2}
FEW_EQUATIONS = {"train_size": 2_000, "validation_size": 200, "test_size": 200}
SHORT: Changes = {"generate": FEW_EQUATIONS, "train": FEW_STEPS}  # the real shapes
TINY_SHORT = merge(TINY, {"train": FEW_STEPS})
GRPO = {"steps": 3, "questions": 16, "group_size": 8, "mistake_copies": 2}
QUICK = {
    "tiny": Pipeline(TINY_SHORT),
    "tiny-four-operations": Pipeline(
        merge(TINY_SHORT, {"train": {"batch_sizes": [16, 16, 16]}}), experiment="four-operations"
    ),
    "tiny-grpo": Pipeline({**TINY_SHORT, "grpo": GRPO}, "generate train"),
}
FULL = {
    **QUICK,
    "default-data": Pipeline({}, "generate"),
    "short": Pipeline(SHORT, "generate train export"),
    "short-positional": Pipeline(SHORT, "generate train export", "positional-attention"),
    "short-four-operations": Pipeline(
        merge(SHORT, {"generate": {"max_operand": 99}}), "generate train export", "four-operations"
    ),
    "six-digits": Pipeline(
        {**SHORT, "evaluate": {**TINY["evaluate"], "sampled_equations": 1_000}},
        experiment="six-digits",
    ),
    # With the weights of model/. Operands up to 100 have as many digits, and fewer equations.
    "trained": Pipeline(
        merge(SHORT, {"generate": {"max_operand": 100}}), "generate export evaluate"
    ),
}


def run_pipelines(folder: Path, is_quick: bool) -> dict[str, str]:
    """Run each pipeline in a folder of its own, this process's working directory; return hashes."""
    set_deterministic()
    hashes = {}
    for name, pipeline in (QUICK if is_quick else FULL).items():
        place = folder / name
        place.mkdir()
        os.chdir(place)
        params = read_yaml(ROOT / "params.yaml")
        if pipeline.experiment:
            params = merge(params, read_yaml(ROOT / f"experiments/{pipeline.experiment}.yaml"))
        Path("params.yaml").write_text(json.dumps(merge(params, pipeline.changes)), "utf-8")
        shutil.copy(ROOT / "hard_cases.csv", place)
        if name == "trained":
            shutil.copytree(ROOT / MODEL, MODEL)
            config = json.loads((MODEL / artifacts.CONFIG).read_bytes())
            config["grammar"]["max_operand"] = 100
            (MODEL / artifacts.CONFIG).write_text(json.dumps(config), "utf-8")
        for stage in pipeline.stages.split():
            import_module(f"stages.{stage}").main()
        for part in ("data", "model", "metrics", "reports"):
            for path in sorted(filter(Path.is_file, (place / part).rglob("*"))):
                hashes[path.relative_to(folder).as_posix()] = md5(path)
    return hashes


def compute(cpu: str, is_quick: bool) -> dict[str, str]:
    """Return the hashes of one CPU; raise UserError if a pipeline fails."""
    emulator, numpy_without = CPUS[cpu]
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator.split(), sys.executable, "-m", "benchmarks.reproduce_cpus"]
        command += ["--into", folder, *(["--quick"] if is_quick else [])]
        run(command, NPY_DISABLE_CPU_FEATURES=numpy_without, LOKY_MAX_CPU_COUNT="1")
        print(f"computed on {cpu}", flush=True)
        hashes: dict[str, str] = json.loads((Path(folder) / "hashes.json").read_bytes())
        return hashes


def hash_repository() -> dict[str, str]:
    """Return the hashes of the repository's data and decoders, which are not shortened."""
    decoders = (ROOT / MODEL / artifacts.DECODERS).glob("*.onnx")
    graphs = {f"trained/{MODEL}/{artifacts.DECODERS}/{path.name}": md5(path) for path in decoders}
    return {f"default-data/{name}": text for name, text in read_lock(ROOT).data.items()} | graphs


def compare_cpus(is_quick: bool) -> pd.DataFrame:
    """Compute on every CPU, as many at once as there are cores.

    Returns:
        A row for each output: its hash by CPU, the repository's (NaN without), and `equal`.
    """
    if not shutil.which(QEMU):
        raise UserError(f"{QEMU} is not installed", "apt-get install qemu-user")
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        results = pool.map(partial(compute, is_quick=is_quick), CPUS)
        outputs = pd.DataFrame(dict(zip(CPUS, results, strict=True))).fillna("missing").sort_index()
    if not is_quick:
        outputs["repository"] = pd.Series(hash_repository())
    return outputs.assign(equal=outputs.nunique(axis=1) == 1)


def main() -> None:
    """Compare the CPUs, or run the pipelines of one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce_cpus")
    parser.add_argument("--quick", action="store_true", help="operands 0-9 alone, no result")
    parser.add_argument("--into", type=Path, help="only run the pipelines on this CPU, in a folder")
    options = parser.parse_args()
    with cli_errors():
        if options.into:
            folder = options.into.resolve()
            hashes = run_pipelines(folder, options.quick)
            (folder / "hashes.json").write_text(json.dumps(hashes), "utf-8")
            return
        outputs = compare_cpus(options.quick)
        print(outputs.to_string())
        is_equal = bool(outputs.pop("equal").all())
        if not options.quick:
            result: dict[str, Any] = {
                "equal": is_equal,
                "emulator": run([QEMU, "--version"]).splitlines()[0],
                "numpy_without": {cpu: without for cpu, (_, without) in CPUS.items()},
                "environment": describe_environment(),
                "outputs": {name: row.dropna().to_dict() for name, row in outputs.iterrows()},
            }
            write("reproduce-cpus", result)
        if not is_equal:
            raise UserError("CPUs, or the repository, differ in the outputs marked above")
        print(f"\n{len(outputs)} outputs, equal on all {len(CPUS)}")


if __name__ == "__main__":
    main()
