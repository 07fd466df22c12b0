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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from arithmetic import layouts
from arithmetic.config import BundleConfig, ModelConfig, write_config
from arithmetic.errors import InvalidParams, Problem, reported
from arithmetic.grammar import Grammar
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages import checkpoint
from stages.checkpoint import Checkpoint
from stages.params import Params, Train, load
from stages.reads import noted
from stages.replica import Replica, Validation, follow
from stages.shards import Exchange, single, with_peers
from stages.timing import timed
from stages.torch_setup import cores, parent_has_gone, single_threaded


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
    """What a training knows besides its replica; all of it goes into the checkpoint.

    Attributes:
        step: steps done.
        history: one row a validation.
        best: index in the history of the smallest validation loss.
        weights: the model's parameters there.
        losses: sum of the training losses since the last validation.
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
        InvalidParams: the file is missing, or is not data of `generate` for this domain.
    """
    try:
        data = pd.read_csv(path, usecols=["operand_1", "operation", "operand_2"])
        parts = []
        for operation in grammar.operations:
            rows = data[data["operation"] == operation]
            a, b = (rows[name].to_numpy(np.int64) for name in ("operand_1", "operand_2"))
            parts.append(layouts.sequences(operation, a, b, grammar.digits))
    except (OSError, ValueError) as error:
        raise InvalidParams(f"{path} is not data of `generate` ({error}); run dvc repro") from error
    if sum(map(len, parts)) != len(data) or not all(map(len, parts)):
        raise InvalidParams(f"{path} is not data of the operations in params.yaml; run dvc repro")
    return [torch.from_numpy(part) for part in parts]


def train(
    shape: ModelConfig, params: Train, prompt: int, data: list[Tensor], validation: list[Tensor]
) -> Progress:
    """Train from scratch or from a checkpoint; the same bytes for the same arguments.

    Args:
        prompt: tokens of a prompt.
        data, validation: sequences per operation, [N, T] uint8.

    Raises:
        Problem: another trainer is at work on the same, or a process of this one was ended.
    """
    name = checkpoint.key([asdict(shape), params.model_dump(), prompt], [*data, *validation])
    with checkpoint.alone(name):
        replica = Replica(shape, params, prompt, data)
        progress = _resumed(name, replica)
        say(f"train: {replica.model.parameter_count():,} parameters, {params.steps:,} steps")
        if progress.step:
            say(f"train: going on from step {progress.step:,}")
        exchange = _exchange(replica, params, name, progress.step)
        try:
            while not _finished(progress, params):
                if parent_has_gone():
                    raise Problem("dvc is gone, so the training stops; `dvc repro` goes on with it")
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
        if progress.step < params.steps:
            say(f"stopped early: no better validation loss in {progress.since_best} validations")
    return progress


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


def forget(shape: ModelConfig, params: Train, prompt: int, data: list[Tensor]) -> None:
    """Remove the checkpoint of a finished training, once its outputs are written."""
    checkpoint.remove(checkpoint.key([asdict(shape), params.model_dump(), prompt], data))


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
    # Without a metadata dict the bytes of a safetensors file are a function of the tensors alone.
    save_file(progress.weights, paths.weights)
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
        with noted("train", params, paths.reads):
            data = read_sequences(paths.train, grammar)
            validation = read_sequences(paths.validation, grammar)
            progress = train(shape, params.train, prompt, data, validation)
            write(progress, params.train, BundleConfig(grammar, shape), paths)
        forget(shape, params.train, prompt, [*data, *validation])


if __name__ == "__main__":
    main()
