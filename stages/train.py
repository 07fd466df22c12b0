"""train: equations to weights.

Reads   params.yaml (`model`, `train`, and the domain), the training and validation CSVs.
Writes  the bundle's config and weights, a history of the run, and a summary of it.

Validation is teacher-forced: greedy decoding reproduces a reference exactly when, fed that
reference, the argmax is the next token everywhere. So training does not depend on the decoder.
Nothing here draws on a global random generator or writes a time.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from arithmetic import layouts
from arithmetic.config import BundleConfig, write_config
from arithmetic.errors import InvalidParams, reported
from arithmetic.model import ModelConfig, Transformer
from stages.optimiser import optimisers
from stages.params import Train, load
from stages.schedule import Schedule
from stages.timing import timed
from stages.torch_setup import single_threaded

VALIDATION_BATCH = 1000


@dataclass(frozen=True)
class Validation:
    """Means over the validation equations: loss and accuracy per answer token, whole answers."""

    loss: float
    token_accuracy: float
    exact_match: float


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


@dataclass(frozen=True)
class Trained:
    """The best checkpoint (smallest validation loss), and how the run went."""

    weights: dict[str, Tensor]
    history: list[Row]
    best: Row
    stopped_early: bool


def read_sequences(path: Path, digits: int) -> Tensor:
    """A CSV's equations in the model's format: [N, T] uint8.

    Raises:
        InvalidParams: the file is missing or its columns are not those of `generate`.
    """
    try:
        data = pd.read_csv(path, dtype={"operation": str, "answer": str})
        parts = [
            (
                rows.index.to_numpy(),
                layouts.sequences(
                    str(operation),
                    rows["operand_1"].to_numpy(np.int64),
                    rows["operand_2"].to_numpy(np.int64),
                    digits,
                ),
            )
            for operation, rows in data.groupby("operation", sort=True)
        ]
    except (OSError, KeyError, ValueError) as error:
        raise InvalidParams(f"{path} is not data of `generate` ({error}); run dvc repro") from error
    result = np.empty((len(data), parts[0][1].shape[1]), np.uint8)
    for index, block in parts:
        result[index] = block
    return torch.from_numpy(result)


def batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices [size] of one batch after another, a new order each epoch, whole batches only."""
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % size].split(size)


def answer_loss(
    model: Transformer, batch: Tensor, prompt: int, reduction: str
) -> tuple[Tensor, Tensor]:
    """Cross-entropy on what follows the prompt, and the logits [B, generated, vocabulary]."""
    ids = batch.long()
    logits = model(ids[:, :-1], first_logit=prompt - 1)
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, prompt:].flatten(), reduction=reduction)
    return loss, logits


@torch.no_grad()
def validate(model: Transformer, data: Tensor, prompt: int) -> Validation:
    """Teacher-forced validation over `data` [N, T]."""
    loss, right, exact = 0.0, 0, 0
    for batch in data.split(VALIDATION_BATCH):
        batch_loss, logits = answer_loss(model, batch, prompt, "sum")
        hits = logits.argmax(-1) == batch[:, prompt:]
        loss += batch_loss.item()
        right += int(hits.sum())
        exact += int(hits.all(1).sum())
    tokens = len(data) * (data.shape[1] - prompt)
    return Validation(loss / tokens, right / tokens, exact / len(data))


def train(
    shape: ModelConfig, params: Train, digits: int, data: Tensor, validation: Tensor
) -> Trained:
    """Train from scratch; the same bytes for the same arguments."""
    generator = torch.Generator().manual_seed(params.seed)
    model = Transformer(shape).initialise(generator)
    prompt = layouts.prompt_length(digits)
    schedule = Schedule(params.warmup_steps, params.flat_steps, params.decay_steps)
    both = optimisers(
        model, params.muon_learning_rate, params.muon_momentum, params.adamw_learning_rate
    )
    peaks = [optimiser.param_groups[0]["lr"] for optimiser in both]
    order = batches(len(data), params.batch_size, generator)
    history: list[Row] = []
    best: Row | None = None
    weights: dict[str, Tensor] = {}
    since_best, loss_sum, loss_count = 0, torch.zeros(()), 0
    progress(f"{model.parameter_count():,} parameters, {schedule.steps:,} steps", header=True)

    for step in range(schedule.steps):
        factor = schedule.factor(step)
        for optimiser, peak in zip(both, peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * factor
        loss, _ = answer_loss(model, data[next(order)], prompt, "mean")
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.gradient_clip)
        for optimiser in both:
            optimiser.step()
        loss_sum += loss.detach()
        loss_count += 1

        done = step + 1
        if done % params.validate_every and done not in schedule.phase_ends:
            continue
        measured = validate(model, validation, prompt)
        row = Row(
            done,
            schedule.phase(step),
            rounded(params.muon_learning_rate * factor),
            rounded(loss_sum.item() / loss_count),
            rounded(measured.loss),
            rounded(measured.token_accuracy),
            rounded(measured.exact_match),
        )
        loss_sum, loss_count = torch.zeros(()), 0
        history.append(row)
        if best is None or row.validation_loss < best.validation_loss:
            best, since_best = row, 0
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        else:
            since_best += 1
        progress(
            f"step {done:5d}/{schedule.steps}  {row.phase:6s}  lr {row.learning_rate:<9.3g}"
            f"loss {row.train_loss:.5f}  validation {row.validation_loss:.5f}  "
            f"exact {row.validation_exact_match:.4f}{'  *' if row is best else ''}"
        )
        if since_best >= params.early_stopping_patience:
            progress(f"stopped early: no better validation loss in {since_best} validations")
            break
    assert best is not None  # the end of the last phase always validates
    return Trained(weights, history, best, history[-1].step < schedule.steps)


def rounded(value: float) -> float:
    """Six significant digits: what a history is read with, and short in a diff."""
    return float(f"{value:.6g}")


def progress(line: str, header: bool = False) -> None:
    print(("train: " if header else "  ") + line, flush=True)


def write(trained: Trained, config: BundleConfig, paths: argparse.Namespace) -> None:
    """Config, weights, history and summary, as safetensors, JSON and CSV."""
    for path in (paths.config, paths.weights, paths.history, paths.summary):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_config(paths.config, config)
    # Without a metadata dict the bytes of a safetensors file are a function of the tensors alone.
    save_file(trained.weights, paths.weights)
    with paths.history.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(trained.best), "best"], lineterminator="\n")
        writer.writeheader()
        for row in trained.history:
            writer.writerow({**asdict(row), "best": int(row is trained.best)})
    summary = {
        "parameters": sum(tensor.numel() for tensor in trained.weights.values()),
        "steps": trained.history[-1].step,
        "stopped_early": trained.stopped_early,
        "best_step": trained.best.step,
        "validation_loss": trained.best.validation_loss,
        "validation_token_accuracy": trained.best.validation_token_accuracy,
        "validation_exact_match": trained.best.validation_exact_match,
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
    paths = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with reported(), timed("train", paths.weights):
        single_threaded()
        params = load(paths.params)
        grammar = params.generate.grammar
        trained = train(
            params.model_shape,
            params.train,
            grammar.digits,
            read_sequences(paths.train, grammar.digits),
            read_sequences(paths.validation, grammar.digits),
        )
        write(trained, BundleConfig(grammar, params.model_shape), paths)


if __name__ == "__main__":
    main()
