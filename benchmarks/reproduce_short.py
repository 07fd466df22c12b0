"""Run shortened pipelines in one process on one core, and hash all that they write.

    python -m benchmarks.reproduce_short FOLDER [--quick]        writes FOLDER/outputs.json

`benchmarks.reproduce_cpus` runs this on each CPU. One process, because a process that an emulated
one starts would run on the real CPU. The stages are the pipeline's own; only counts are smaller.
"""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from arithmetic.artifacts import WEIGHTS
from arithmetic.errors import cli_errors
from arithmetic.inference import OnnxModel
from arithmetic.model import Transformer, load_model
from benchmarks.reproduce_operations import Operations
from benchmarks.results_file import ROOT
from benchmarks.workspace import TINY, Changes, merge
from registry.dvc_lock import read_yaml
from stages import certify, domain, evaluate, export, generate, train
from stages.dataset import read_split
from stages.optimizer import build_optimizers
from stages.params import load_params
from stages.workers import Workers, set_deterministic

FEW_STEPS = {"warmup_steps": 1, "flat_steps": 1, "decay_steps": 2, "validate_every": 2}
FEW_EQUATIONS = {"train_size": 2_000, "validation_size": 200, "test_size": 200}
LATE_STEPS = 2
SAMPLE, DECODED = 1_000, 200  # equations of the trained model
MODULES = {"generate": generate, "train": train, "export": export, "evaluate": evaluate}
ALL = tuple(MODULES)


class Configuration(NamedTuple):
    """Describe one shortened pipeline: an experiment file, changed params and the stages to run."""

    changes: Changes
    stages: tuple[str, ...] = ALL
    experiment: str = ""

    def params(self) -> dict[str, Any]:
        """Return all params."""
        params = read_yaml(ROOT / "params.yaml")
        if self.experiment:
            params = merge(params, read_yaml(ROOT / "experiments" / f"{self.experiment}.yaml"))
        return merge(params, self.changes)


FOUR_TINY: Changes = {
    "generate": {"max_operand": 9, "train_size": 240, "validation_size": 40, "test_size": 40},
    "train": {**FEW_STEPS, "batch_sizes": [16, 16, 16]},
    "evaluate": TINY["evaluate"],
}
QUICK = {
    "tiny": Configuration({**TINY, "train": {**FEW_STEPS, "batch_sizes": [16]}}),
    "tiny-four-operations": Configuration(FOUR_TINY, experiment="four-operations"),
}
# The real shapes: three digits, batches as they are.
SHORT: Changes = {"generate": FEW_EQUATIONS, "train": FEW_STEPS}
FULL = {
    **QUICK,
    "default-data": Configuration({}, ("generate",)),
    "short": Configuration(SHORT, ALL[:3]),
    "short-positional": Configuration(SHORT, ALL[:3], "positional-attention"),
    "short-four-operations": Configuration(
        {**SHORT, "generate": {**FEW_EQUATIONS, "max_operand": 99}}, ALL[:3], "four-operations"
    ),
    "six-digits": Configuration({"generate": FEW_EQUATIONS}, ("generate",), "six-digits"),
}


class Outputs:
    """Collect the SHA-256 of each output by name, and the operations of torch that trained."""

    def __init__(self) -> None:
        self.sha256: dict[str, str] = {}
        self.operations: set[str] = set()

    def add(self, name: str, content: bytes) -> None:
        """Hash one output."""
        self.sha256[name] = hashlib.sha256(content).hexdigest()
        print(f"{self.sha256[name][:12]}  {name}", flush=True)

    def add_files(self, name: str, folder: Path) -> None:
        """Hash every file that a pipeline wrote."""
        for part in ("data", "model", "metrics", "reports"):
            for path in sorted(filter(Path.is_file, (folder / part).rglob("*"))):
                self.add(f"{name}/{path.relative_to(folder)}", path.read_bytes())


def run_pipeline(name: str, configuration: Configuration, folder: Path, outputs: Outputs) -> None:
    """Run the stages of a configuration in `folder`, which becomes the working directory."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    (folder / "params.yaml").write_text(json.dumps(configuration.params()), encoding="utf-8")
    shutil.copy(ROOT / "hard_cases.csv", folder)
    for stage in configuration.stages:
        with Operations() as operations:
            MODULES[stage].main()
        if stage == "train":
            outputs.operations |= operations.seen
    outputs.add_files(name, folder)


def run_trained_model(data: Path, folder: Path, outputs: Outputs) -> None:
    """Continue from the weights of model/: activations differ at the end of a training.

    Args:
        data: the folder of the pipeline `default-data`.
    """
    shutil.copytree(ROOT / "model", folder / "model")
    shutil.copytree(data / "data", folder / "data")
    shutil.copy(ROOT / "params.yaml", folder)
    os.chdir(folder)
    export.main()
    outputs.add_files("trained", folder)
    params, grammar = load_params(), load_params().generate.grammar
    job = train.build_job(params, read_split("train", grammar), read_split("validation", grammar))
    model = Transformer(job.config)
    model.load_state_dict(load_file(folder / "model" / WEIGHTS))
    muon, adamw = build_optimizers(model, params.train)
    batches = train.Batches(job)
    for step in range(LATE_STEPS):
        train.update_gradients(model, job, batches, step, Workers())
        muon.step()
        adamw.step()
    outputs.add("trained/late steps", join(model.state_dict()))
    loaded = certify.WorkerModel(load_model(folder / "model"), OnnxModel(folder / "model"))
    for operation in grammar.operations:
        rows = np.random.default_rng(1).choice(grammar.count(operation), SAMPLE, replace=False)
        sample = certify.Equations(operation, *grammar.equations(operation)).select(rows)
        margins = certify.compute_margins(loaded, sample)
        outputs.add(f"trained/margins {operation}", margins.tobytes())
        decoded = certify.decode(loaded, sample.select(slice(DECODED)))
        outputs.add(f"trained/decoded {operation}", decoded.tobytes())


def join(tensors: dict[str, Tensor]) -> bytes:
    """Return names and values as bytes."""
    return b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in tensors.items())


def run_sampled_domain(outputs: Outputs) -> None:
    """Choose equations of a domain too large to list, and bound its error rate."""
    grammar = generate.load_params().generate.grammar
    for operation in grammar.operations:
        rng = np.random.default_rng(1)
        pairs, _ = domain.choose_equations(grammar, operation, 10_000, rng)
        outputs.add(f"six-digits/certified {operation}", np.stack(pairs).tobytes())
    bounds = [domain.bound_error_rate(errors, 1_000_000) for errors in range(100)]
    outputs.add("six-digits/error rate bounds", repr(bounds).encode())


def run_everything(scratch: Path, is_quick: bool) -> Outputs:
    """Return all outputs, computed in `scratch`."""
    set_deterministic()
    outputs = Outputs()
    for name, configuration in (QUICK if is_quick else FULL).items():
        run_pipeline(name, configuration, scratch / name, outputs)
    if not is_quick:
        run_sampled_domain(outputs)  # in the folder of six-digits, the last one
        if (ROOT / "model").is_dir():
            run_trained_model(scratch / "default-data", scratch / "trained", outputs)
    return outputs


def main() -> None:
    """Compute, hash and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce_short")
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with cli_errors():
        folder = options.folder.resolve()
        outputs = run_everything(folder, options.quick)
        content = {"sha256": outputs.sha256, "operations": sorted(outputs.operations)}
        (folder / "outputs.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
