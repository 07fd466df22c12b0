"""Compare shortened pipelines' bytes between this CPU, an emulated Intel and an emulated AMD one.

    make reproduce-cpus        python -m benchmarks.reproduce_cpus [--quick]

Runs the pipelines here, here with numpy's AVX2 code, and under QEMU as Haswell and EPYC, and hashes
all that they write; exits with 1 if a hash differs. The stages are the real ones; only counts are
smaller. Data and decoders, which are not shortened, are compared with the repository's, too. Each
CPU's hashes are kept in `.bench/cpus/` while the code is the same, so an interrupted
comparison continues. Writes benchmarks/results/reproduce-cpus.json.

QEMU 7.2 computes numpy's AVX2 `argsort` wrongly, so emulated numpy runs without it; the second
native run covers that code. Each CPU's pipelines run in one process (`--into FOLDER`) on one core,
because a process that an emulated one starts would run on the real CPU.
"""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.model import load_model
from benchmarks.reproduce import compare, describe_environment, is_equal, show
from benchmarks.results_file import ROOT, code_digest, write
from benchmarks.workspace import TINY, Changes, environment, merge
from registry.dvc_lock import md5, md5_of_bytes, read_lock, read_yaml
from stages import MODEL, evaluate, export, generate, train
from stages.dataset import read_split
from stages.optimizer import build_optimizers
from stages.params import load_params
from stages.workers import Workers, set_deterministic

QEMU = "qemu-x86_64"
SOURCES = (
    *("arithmetic/*.py", "stages/*.py", "benchmarks/reproduce*.py", "benchmarks/workspace.py"),
    *("params.yaml", "experiments/*.yaml", "hard_cases.csv", "model/*.json", "model/*.saf*"),
)
# Name, command before `python`, and the sets of instructions that numpy does not use.
CPUS = {
    "this CPU": ("", ""),
    "this CPU, numpy without AVX-512": ("", "X86_V4 AVX512_ICL AVX512_SPR"),
    "Intel Haswell, emulated": (f"{QEMU} -cpu Haswell", "X86_V3"),
    "AMD EPYC, emulated": (f"{QEMU} -cpu EPYC", "X86_V3"),
}

MODULES = {"generate": generate, "train": train, "export": export, "evaluate": evaluate}
FEW_STEPS = {"warmup_steps": 1, "flat_steps": 1, "decay_steps": 2, "validate_every": 2}
FEW_EQUATIONS = {"train_size": 2_000, "validation_size": 200, "test_size": 200}
SHORT: Changes = {"generate": FEW_EQUATIONS, "train": FEW_STEPS}  # the real shapes
LATE_STEPS = 2
DECODERS = ROOT / MODEL / artifacts.DECODERS


class Pipeline(NamedTuple):
    """Describe one shortened pipeline: changed params, the stages, and an experiment file."""

    changes: Changes
    stages: str = "generate train export"
    experiment: str = ""


QUICK = {
    "tiny": Pipeline(
        {**TINY, "train": {**FEW_STEPS, "batch_sizes": [16]}}, "generate train export evaluate"
    ),
    "tiny-four-operations": Pipeline(
        {
            "generate": {
                "max_operand": 9,
                "train_size": 240,
                "validation_size": 40,
                "test_size": 40,
            },
            "train": {**FEW_STEPS, "batch_sizes": [16, 16, 16]},
            "evaluate": TINY["evaluate"],
        },
        "generate train export evaluate",
        "four-operations",
    ),
    "tiny-grpo": Pipeline(
        {
            **TINY,
            "train": {**FEW_STEPS, "batch_sizes": [16]},
            "grpo": {"steps": 3, "questions": 16, "group_size": 8, "mistake_copies": 2},
        },
        "generate train",
    ),
}
FULL = {
    **QUICK,
    "default-data": Pipeline({}, "generate"),
    "short": Pipeline(SHORT),
    "short-positional": Pipeline(SHORT, experiment="positional-attention"),
    "short-four-operations": Pipeline(
        {**SHORT, "generate": {**FEW_EQUATIONS, "max_operand": 99}}, experiment="four-operations"
    ),
    "six-digits": Pipeline(
        {**SHORT, "evaluate": {**TINY["evaluate"], "sampled_equations": 1_000}},
        "generate train export evaluate",
        "six-digits",
    ),
    # With the weights of model/. Operands up to 100 have as many digits, and fewer equations.
    "trained": Pipeline(
        {**SHORT, "generate": {**FEW_EQUATIONS, "max_operand": 100}}, "generate export evaluate"
    ),
}


def run_pipelines(folder: Path, is_quick: bool) -> dict[str, str]:
    """Run each pipeline in a folder of its own, this process's working directory; return hashes."""
    set_deterministic()
    hashes = {}
    for name, pipeline in (QUICK if is_quick else FULL).items():
        if name == "trained" and not (ROOT / MODEL).is_dir():
            continue
        place = folder / name
        place.mkdir(parents=True)
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
            hashes["trained/late steps"] = train_on()
        for stage in pipeline.stages.split():
            MODULES[stage].main()
        for part in ("data", "model", "metrics", "reports"):
            for path in sorted(filter(Path.is_file, (place / part).rglob("*"))):
                output = path.relative_to(folder).as_posix()
                hashes[output] = md5(path)
    return hashes


def train_on() -> str:
    """Train the model on: activations differ at the end of a training; return the weights' hash."""
    generate.main()
    params, model = load_params(), load_model(MODEL).train()
    splits = (read_split(name, params.generate.grammar) for name in ("train", "validation"))
    job, optimizers = train.build_job(params, *splits), build_optimizers(model, params.train)
    batches = train.Batches(job)
    for step in range(LATE_STEPS):
        train.update_gradients(model, job, batches, step, Workers())
        for optimizer in optimizers:
            optimizer.step()
    weights = (tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return md5_of_bytes(b"".join(weights))


def compute(cpu: str, folder: Path, is_quick: bool, core: int) -> dict[str, str]:
    """Return the hashes of one CPU, computed in `folder` unless they are there. Raise UserError."""
    result, (emulator, numpy_without) = folder / "hashes.json", CPUS[cpu]
    if not result.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["taskset", "-c", str(core), *emulator.split(), sys.executable]
        command += ["-m", "benchmarks.reproduce_cpus", "--into", str(folder)]
        command += ["--quick"] if is_quick else []
        variables = environment(NPY_DISABLE_CPU_FEATURES=numpy_without, LOKY_MAX_CPU_COUNT="1")
        with (folder / "log").open("w+", errors="replace") as log:
            if subprocess.call(command, cwd=ROOT, env=variables, stdout=log, stderr=log):
                log.seek(0)
                raise UserError(f"the pipelines fail on {cpu}: {log.read()[-3000:]}")
    print(f"computed on {cpu}", flush=True)
    hashes: dict[str, str] = json.loads(result.read_text("utf-8"))
    return hashes


def hash_repository() -> dict[str, str]:
    """Return the hashes of the repository's data and decoders, which are not shortened."""
    graphs = {
        f"trained/{MODEL}/decoders/{path.name}": md5(path) for path in DECODERS.glob("*.onnx")
    }
    return {f"default-data/{name}": text for name, text in read_lock(ROOT).data.items()} | graphs


def compare_cpus(is_quick: bool, folder: Path) -> dict[str, Any]:
    """Compute on every CPU, as many at once as there are cores, and compare."""
    if not shutil.which(QEMU):
        raise UserError(f"{QEMU} is not installed", "apt-get install qemu-user")
    emulator = subprocess.check_output([QEMU, "--version"], text=True).splitlines()[0]
    folders = {cpu: folder / cpu.replace(" ", "-") for cpu in CPUS}
    allowed = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(allowed)) as pool:
        jobs = {
            cpu: pool.submit(compute, cpu, place, is_quick, allowed[number % len(allowed)])
            for number, (cpu, place) in enumerate(folders.items())
        }
        outputs = compare({cpu: job.result() for cpu, job in jobs.items()})
    for name, text in {} if is_quick else hash_repository().items():
        outputs[name]["repository"] = text
    return {
        "equal": all(map(is_equal, outputs.values())),
        "emulator": emulator,
        "numpy_without": {cpu: CPUS[cpu][1] for cpu in folders},
        "environment": describe_environment(),
        "outputs": outputs,
    }


def main() -> None:
    """Compare the CPUs, or run the pipelines of one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce_cpus")
    parser.add_argument("--quick", action="store_true", help="operands 0-9 alone, no result")
    parser.add_argument("--into", type=Path, help="only run the pipelines on this CPU, in a folder")
    options = parser.parse_args()
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        if options.into:
            hashes = run_pipelines(options.into.resolve(), options.quick)
            os.chdir(ROOT)
            (options.into / "hashes.json").write_text(json.dumps(hashes, indent=2), "utf-8")
            return
        folder = ROOT / ".bench" / "cpus" / code_digest(*SOURCES)
        result = compare_cpus(options.quick, Path(scratch) if options.quick else folder)
        print(show(result["outputs"]))
        if not options.quick:
            write("reproduce-cpus", result)
        if not result["equal"]:
            raise UserError("CPUs, or the repository, differ in the outputs marked above")
        print(f"\n{len(result['outputs'])} outputs, equal on all {len(CPUS)}")


if __name__ == "__main__":
    main()
