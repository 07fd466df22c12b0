"""train: equations to weights.

Reads   params.yaml (`model`, `train`, and the domain), the training and validation CSVs.
Writes  the bundle's config and weights, a history of the run, and a summary of it.

Validation is teacher-forced: greedy decoding reproduces a reference exactly when, fed that
reference, the argmax is the next token everywhere. So training does not depend on the decoder.
Nothing here draws on a global random generator or writes a time. A killed training goes on from its
last checkpoint (`stages.checkpoint`) and ends in the same bytes.
"""

import argparse
import csv
import json
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arithmetic import layouts
from arithmetic.config import BundleConfig, ModelConfig, write_config
from arithmetic.errors import InvalidParams, Problem, reported
from arithmetic.grammar import Grammar
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages import checkpoint, stop_if_orphaned
from stages.checkpoint import Checkpoint
from stages.params import Params, Train, load
from stages.reads import noted
from stages.replica import Replica, Validation, follow
from stages.shards import Exchange, single, with_peers
from stages.splits import read_split
from stages.timing import timed
from stages.torch_setup import cores, single_threaded


@dataclass(frozen=True)
class Row:
    """One line of the history; floats are rounded to six significant digits."""

    step: int
    phase: str
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_token_accuracy: float
    validation_exact_match: float


@dataclass
class Progress:
    """What a training knows besides its replica; all but `losses` goes into the checkpoint.

    Attributes:
        step: steps done.
        history: one row a validation.
        best: index in the history of the smallest validation loss.
        weights: the model's parameters there.
        losses: sum of the training losses since the last validation; 0 where one is written.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    best: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    losses: float = 0.0

    @property
    def since_best(self) -> int:
        """Validations since the best one."""
        return len(self.history) - 1 - self.best


def read_sequences(path: Path, grammar: Grammar) -> list[Tensor]:
    """A CSV's equations in the model's format, per operation of the grammar: [N, T] uint8 each.

    Raises:
        InvalidParams: as `read_split`, or an operation has no equations.
    """
    split = read_split(path, grammar)
    for operation, (a, _) in split.items():
        if not len(a):
            raise InvalidParams(f"{path} has no equation with {operation}; run dvc repro")
    return [
        torch.from_numpy(layouts.sequences(operation, a, b, grammar.digits))
        for operation, (a, b) in split.items()
    ]


def train(
    shape: ModelConfig, params: Train, prompt: int, data: list[Tensor], validation: list[Tensor]
) -> Progress:
    """Train from scratch or from a checkpoint; the same bytes for the same arguments.

    Args:
        prompt: tokens of a prompt.
        data, validation: sequences per operation, [N, T] uint8.

    Raises:
        InvalidParams: an operation has fewer equations than a batch.
        Problem: the loss is no number any more, there is no room for a checkpoint, the stage is an
            orphan, or a process of the training was ended.
    """
    for rows, size in zip(data, params.batch_sizes, strict=True):
        if len(rows) < size:
            raise InvalidParams(
                f"train.batch_sizes has {size}, and an operation has {len(rows)} training "
                "equations; run dvc repro"
            )
    name = name_of(shape, params, prompt, data, validation)
    replica = Replica(shape, params, prompt, data)
    progress = _resumed(name, replica)
    say(f"train: {replica.model.parameter_count():,} parameters, {params.steps:,} steps")
    if progress.step:
        say(f"train: going on from step {progress.step:,}")
    if not _finished(progress, params):  # a finished one was killed before its outputs were written
        _go_on(replica, progress, params, name, validation)
    if progress.step < params.steps:
        say(f"stopped early: no better validation loss in {progress.since_best} validations")
    return progress


def name_of(
    shape: ModelConfig, params: Train, prompt: int, data: list[Tensor], validation: list[Tensor]
) -> str:
    """The key of a training's checkpoint; arguments as of `train`."""
    return checkpoint.key([asdict(shape), params.model_dump(), prompt], [*data, *validation])


def _go_on(
    replica: Replica, progress: Progress, params: Train, name: str, validation: list[Tensor]
) -> None:
    """Train from where `progress` is to the end."""
    exchange = _exchange(replica, params, name, progress.step)
    try:
        while not _finished(progress, params):
            stop_if_orphaned()
            _advance(replica, exchange, progress)
            if progress.step % params.validate_every and not _phase_ends(replica, progress):
                continue
            _validate(replica, progress, validation)
            checkpoint.save(name, _checkpoint(replica, progress))
    except (EOFError, ConnectionError) as error:
        raise Problem(
            "a process of the training was ended from outside; `dvc repro` goes on from step "
            f"{progress.history[-1].step if progress.history else 0}"
        ) from error


def shape_of(params: Params) -> ModelConfig:
    """The model's shape with what follows from the domain: vocabulary and sequence lengths."""
    grammar = params.generate.grammar
    prompt = layouts.prompt_length(grammar.digits)
    return ModelConfig(
        vocabulary=VOCABULARY_SIZE,
        # END is predicted, never read, so a sequence is one shorter than it is long.
        lengths=tuple(
            prompt + layouts.lengths(operation, grammar.digits).generated - 1
            for operation in grammar.operations
        ),
        **params.model.model_dump(),
    )


def _exchange(replica: Replica, params: Train, name: str, step: int) -> Exchange:
    processes = min(params.shards, cores())
    if processes == 1:
        return single(params.shards, replica.size)
    arguments = (replica.arguments, name, step)
    return with_peers(params.shards, replica.size, processes, follow, arguments)


def _finished(progress: Progress, params: Train) -> bool:
    return progress.step == params.steps or progress.since_best >= params.early_stopping_patience


def _phase_ends(replica: Replica, progress: Progress) -> bool:
    return progress.step in replica.schedule.phase_ends


def _advance(replica: Replica, exchange: Exchange, progress: Progress) -> None:
    progress.losses += replica.step(exchange, progress.step)
    progress.step += 1


def _validate(replica: Replica, progress: Progress, data: list[Tensor]) -> None:
    """Add a row to the history, and keep the weights if they are the best so far."""
    measured: Validation = replica.validate(data)
    if not math.isfinite(measured.loss):
        raise Problem(
            f"the validation loss is {measured.loss} after {progress.step} steps: the training "
            "diverged; lower train.muon_learning_rate or train.adamw_learning_rate"
        )
    steps = progress.step - (progress.history[-1].step if progress.history else 0)
    factor = replica.schedule.factor(progress.step - 1)
    row = Row(
        progress.step,
        replica.schedule.phase(progress.step - 1),
        rounded(replica.params.muon_learning_rate * factor),
        rounded(progress.losses / steps),
        rounded(measured.loss),
        rounded(measured.token_accuracy),
        rounded(measured.exact_match),
    )
    progress.losses = 0.0
    progress.history.append(row)
    best = progress.history[progress.best]
    if not progress.weights or row.validation_loss < best.validation_loss:
        progress.best = len(progress.history) - 1
        progress.weights = replica.weights()
    say(
        f"  step {row.step:5d}/{replica.schedule.steps}  {row.phase:6s}  "
        f"lr {row.learning_rate:<9.3g}loss {row.train_loss:.2e}  validation "
        f"{row.validation_loss:.2e}  exact {row.validation_exact_match:.4f}"
        f"{'  *' if progress.since_best == 0 else ''}"
    )


def _checkpoint(replica: Replica, progress: Progress) -> Checkpoint:
    tensors = {f"best.{name}": tensor for name, tensor in progress.weights.items()}
    state = {
        "step": progress.step,
        "best": progress.best,
        "history": [asdict(row) for row in progress.history],
    }
    return Checkpoint(tensors | replica.state(), state)


def _resumed(name: str, replica: Replica) -> Progress:
    found = checkpoint.load(name)
    if found is None:
        return Progress()
    replica.restore(found.tensors)
    prefix = "best."
    weights = {k.removeprefix(prefix): v for k, v in found.tensors.items() if k.startswith(prefix)}
    history = [Row(**row) for row in found.state["history"]]
    return Progress(found.state["step"], history, found.state["best"], weights)


def rounded(value: float) -> float:
    """Six significant digits: what a history is read with, and short in a diff."""
    return float(f"{value:.6g}")


def say(line: str) -> None:
    print(line, flush=True)


def write(progress: Progress, params: Train, config: BundleConfig, paths: Any) -> None:
    """Config, weights, history and summary, as safetensors, JSON and CSV."""
    for path in (paths.config, paths.weights, paths.history, paths.summary):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_config(paths.config, config)
    checkpoint.write_tensors(progress.weights, paths.weights)
    best = progress.history[progress.best]
    with paths.history.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(best), "best"], lineterminator="\n")
        writer.writeheader()
        for row in progress.history:
            writer.writerow({**asdict(row), "best": int(row is best)})
    summary = {
        "parameters": sum(tensor.numel() for tensor in progress.weights.values()),
        "steps": progress.step,
        "stopped_early": progress.step < params.steps,
        "best_step": best.step,
        "validation_loss": best.validation_loss,
        "validation_token_accuracy": best.validation_token_accuracy,
        "validation_exact_match": best.validation_exact_match,
    }
    paths.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the model.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--train", type=Path, default=Path("data/train.csv"))
    parser.add_argument("--validation", type=Path, default=Path("data/validation.csv"))
    parser.add_argument("--config", type=Path, default=Path("bundle/config.json"))
    parser.add_argument("--weights", type=Path, default=Path("bundle/weights.safetensors"))
    parser.add_argument("--history", type=Path, default=Path("metrics/history.csv"))
    parser.add_argument("--summary", type=Path, default=Path("metrics/training.json"))
    parser.add_argument("--reads", type=Path, help="where to note what was read")
    paths = parser.parse_args()
    with reported(), timed("train", paths.weights):
        single_threaded()
        params = load(paths.params)
        grammar = params.generate.grammar
        shape, prompt = shape_of(params), layouts.prompt_length(grammar.digits)
        with ExitStack() as held:  # the lock, until the outputs are there and the checkpoint gone
            with noted("train", params, paths.reads) as check:
                data = read_sequences(paths.train, grammar)
                validation = read_sequences(paths.validation, grammar)
                name = name_of(shape, params.train, prompt, data, validation)
                held.enter_context(checkpoint.alone(name))
                progress = train(shape, params.train, prompt, data, validation)
                check()
                write(progress, params.train, BundleConfig(grammar, shape), paths)
            checkpoint.remove(name)


if __name__ == "__main__":
    main()
