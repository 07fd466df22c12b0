"""A shortened pipeline in one process; what `make reproduce-cpus` runs on every CPU.

    python -m benchmarks.reproduce_short FOLDER      writes FOLDER/outputs.json

The functions are the stages' own and the shapes are the real ones. Only counts are smaller: steps
of training, equations validated, certified and decoded. The small configuration goes through all
of it, evaluation included. One process, because a process that an emulated one starts would run on
the real CPU; `stages.shards` gives the same bytes with one as with several.
"""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from arithmetic import bundle, layouts
from arithmetic.config import BundleConfig, ModelConfig
from arithmetic.errors import reported
from benchmarks import small
from benchmarks.reproduce_operations import Operations
from stages import domain, evaluate, export, generate, train
from stages.certify import SHARD, Equations, Prover
from stages.params import Params, load
from stages.replica import Replica
from stages.shards import single
from stages.torch_setup import single_threaded

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = {"default": ROOT, "four-operations": ROOT / "four-operations"}
ATTENTIONS = ("position", "content")


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        projects: which configurations.
        data: equations to train on; None for as many as the configuration has.
        steps: of the warm-up, the flat and the decaying part, from scratch.
        late: steps from the committed weights.
        validated, certified, decoded: equations of each operation.
        graphs: whether graphs are exported.
        small: whether the small configuration goes through every stage besides, and a domain too
            large to be listed is sampled.
    """

    projects: tuple[str, ...] = ("default", "four-operations")
    data: int | None = None
    steps: tuple[int, int, int] = (1, 1, 1)
    late: int = 2
    validated: int = 200
    certified: int = 1_000
    decoded: int = 200
    graphs: bool = True
    small: bool = True


FULL = Size()
# What CI has time for: emulated, a step costs about 5 s and the graphs of two operations 20 s.
QUICK = Size(("default",), 2_000, (1, 0, 1), 1, 50, 500, 20, graphs=False, small=False)


@dataclass
class Outputs:
    """SHA-256 by name of everything computed, and the operations that trained."""

    sha256: dict[str, str] = field(default_factory=dict)
    operations: set[str] = field(default_factory=set)

    def add(self, name: str, content: bytes) -> None:
        self.sha256[name] = hashlib.sha256(content).hexdigest()
        print(f"{self.sha256[name][:12]}  {name}", flush=True)

    def add_files(self, name: str, folder: Path) -> None:
        for path in sorted(filter(Path.is_file, folder.rglob("*"))):
            self.add(f"{name}/{path.relative_to(folder)}", path.read_bytes())

    def add_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        parts = [key.encode() + tensor.numpy().tobytes() for key, tensor in tensors.items()]
        self.add(name, b"".join(parts))


class InThisProcess:
    """`stages.certify.Provers` without a pool: the same shards, one after the other."""

    def __init__(self, folder: Path, processes: int):
        self.prover = Prover(folder)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(
        self, method: str, equations: Equations, size: int = SHARD, arguments: tuple[int, ...] = ()
    ) -> np.ndarray:
        parts = [getattr(self.prover, method)(part, *arguments) for part in equations.split(size)]
        return np.concatenate(parts) if parts else np.empty(0)


def data(
    params: Params, folder: Path, train_size: int | None = None, hard_cases: Sequence[str] = ()
) -> None:
    """The stage `generate` into `folder`, by the names that the pipeline's outputs have."""
    folder.mkdir(parents=True)
    wanted = params.generate
    if train_size:
        wanted = wanted.model_copy(update={"train_size": train_size})
    splits = generate.generate(wanted, hard_cases)
    for name, rows in splits.items():
        rows.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    generate.summary(splits).to_csv(folder / "data_summary.csv", index=False, lineterminator="\n")


def shape_of(params: Params, attention: str) -> ModelConfig:
    model = params.model.model_copy(update={"attention": attention})
    return train.shape_of(params.model_copy(update={"model": model}))


def trained(
    params: Params, attention: str, source: Path, target: Path, outputs: Outputs, size: Size
) -> None:
    """The stages `train` and `export`: initialised, a few steps through every phase, exported."""
    grammar, shape = params.generate.grammar, shape_of(params, attention)
    prompt = layouts.prompt_length(grammar.digits)
    warmup, flat, decay = size.steps
    short = params.train.model_copy(
        update={
            "warmup_steps": warmup,
            "flat_steps": flat,
            "decay_steps": decay,
            "validate_every": 2,
        }
    )
    sequences = train.read_sequences(source / "train.csv", grammar)
    validation = [
        rows[: size.validated] for rows in train.read_sequences(source / "validation.csv", grammar)
    ]
    replica = Replica(shape, short, prompt, sequences)
    outputs.add_tensors(f"{target.name}/initial weights", replica.weights())
    with Operations() as operations:
        progress = train.train(shape, short, prompt, sequences, validation)
    outputs.operations |= operations.seen
    paths = SimpleNamespace(
        config=target / bundle.CONFIG,
        weights=target / bundle.WEIGHTS,
        history=target / "history.csv",
        summary=target / "training.json",
    )
    train.write(progress, short, BundleConfig(grammar, shape), paths)
    if size.graphs:
        (target / bundle.DECODERS).mkdir()
        for path, graph in export.export(target, params.export.opset).items():
            (target / path).write_bytes(graph)
    outputs.add_files(target.name, target)


def late_steps(params: Params, committed: Path, source: Path, outputs: Outputs, size: Size) -> None:
    """Steps from the committed weights: activations are others at the end of a training."""
    grammar, shape = params.generate.grammar, train.shape_of(params)
    prompt = layouts.prompt_length(grammar.digits)
    replica = Replica(
        shape, params.train, prompt, train.read_sequences(source / "train.csv", grammar)
    )
    replica.model.load_state_dict(export.load_model(committed).state_dict())
    exchange = single(params.train.shards, replica.size)
    with Operations() as operations:
        for step in range(params.train.steps - size.late, params.train.steps):
            replica.step(exchange, step)
    outputs.operations |= operations.seen
    outputs.add_tensors(f"{source.name}/steps from the committed weights", replica.state())


def certified(params: Params, committed: Path, name: str, outputs: Outputs, size: Size) -> None:
    """The committed model: its graphs exported anew, margins and answers on a sample."""
    if size.graphs:
        for path, graph in export.export(committed, params.export.opset).items():
            outputs.add(f"{name}/committed/{path}", graph)
    prover, grammar = Prover(committed), params.generate.grammar
    rng = np.random.default_rng(1)
    for operation in grammar.operations:
        every = Equations(operation, *grammar.equations(operation))
        sample = every[rng.choice(len(every), size.certified, replace=False)]
        outputs.add(f"{name}/committed/margins {operation}", prover.margins(sample).tobytes())
        few = sample[slice(size.decoded)]
        outputs.add(f"{name}/committed/decoded {operation}", prover.decode(few).tobytes())
        outputs.add(f"{name}/committed/decoded by graph {operation}", prover.graph(few).tobytes())
        fewer = few[slice(size.decoded // 10)]
        outputs.add(f"{name}/committed/beam {operation}", prover.beam(fewer, 3).tobytes())


def small_pipeline(scratch: Path, outputs: Outputs) -> None:
    """Operands 0-9 through every stage, `evaluate` with all that it writes."""
    file = scratch / "params.yaml"
    file.write_text(json.dumps(small.params()), encoding="utf-8")  # JSON is YAML
    params = load(file)
    data(params, scratch / "small-data")
    outputs.add_files("small/data", scratch / "small-data")
    target = scratch / "small"
    trained(params, params.model.attention, scratch / "small-data", target, outputs, FULL)
    grammar = params.generate.grammar
    read = partial(evaluate.read_equations, grammar=grammar)
    with patch.object(evaluate, "Provers", InThisProcess):
        result = evaluate.evaluate(
            target,
            read(scratch / "small-data" / "test.csv"),
            read(scratch / "small-data" / "train.csv"),
            params.evaluate,
        )
    outputs.add("small/evaluation.json", json.dumps(result, indent=2).encode())


def sampled_domain(params: Params, scratch: Path, outputs: Outputs) -> None:
    """Six digits: candidates instead of the whole domain, a sample instead of every equation."""
    large = {"max_operand": 999_999, "train_size": 2_000, "validation_size": 200, "test_size": 200}
    params = params.model_copy(update={"generate": params.generate.model_copy(update=large)})
    data(params, scratch / "six-digits")
    outputs.add_files("six-digits/data", scratch / "six-digits")
    for operation in params.generate.operations:
        rng = np.random.default_rng(params.evaluate.seed)
        certified = domain.chosen(params.generate.grammar, operation, 10_000, rng).equations
        pairs = np.stack([certified.operand_1, certified.operand_2])
        outputs.add(f"six-digits/certified {operation}", pairs.tobytes())
    bounds = [domain.error_rate_bound(errors, 1_000_000) for errors in range(100)]
    outputs.add("six-digits/error rate bounds", repr(bounds).encode())


def everything(scratch: Path, size: Size) -> Outputs:
    """All outputs, computed in `scratch`, which becomes the working directory."""
    single_threaded()
    os.chdir(scratch)  # where checkpoints go
    outputs = Outputs()
    for name in size.projects:
        project = PROJECTS[name]
        params = load(project / "params.yaml")
        source = scratch / name
        hard = generate.read_hard_cases(project / "hard_cases.csv")
        data(params, source, size.data, hard)
        outputs.add_files(f"{name}/data", source)
        for attention in ATTENTIONS:
            # Of four operations the committed model's graphs will do: emulated they take minutes.
            fewer = replace(size, graphs=size.graphs and name == "default")
            trained(params, attention, source, scratch / f"{name}-{attention}", outputs, fewer)
        late_steps(params, project / "bundle", source, outputs, size)
        certified(params, project / "bundle", name, outputs, size)
    if size.small:
        small_pipeline(scratch, outputs)
        sampled_domain(load(PROJECTS["default"] / "params.yaml"), scratch, outputs)
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute a shortened pipeline's outputs.")
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--quick", action="store_true", help="what CI does")
    parser.add_argument("--core", type=int, help="run on this one")
    given = parser.parse_args()
    with reported():
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed) if given.core is None else given.core})
        outputs = everything(given.folder.resolve(), QUICK if given.quick else FULL)
        found: dict[str, Any] = {
            "sha256": outputs.sha256,
            "operations": sorted(outputs.operations),
            "capability": torch.backends.cpu.get_cpu_capability(),
        }
        (given.folder / "outputs.json").write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
