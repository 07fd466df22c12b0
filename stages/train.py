"""Train the model: `python -m stages.train`.

Reads   params.yaml (`model`, `train`, `grpo`, the domain), data/train.csv, data/validation.csv
Writes  model/config.json, model/model.safetensors, model/input_profile.json, metrics/history.csv,
        metrics/grpo.csv, metrics/training.json, reports/training.json

Validation is teacher-forced: where the argmax is the next token of the reference everywhere, greedy
decoding would generate that reference.
"""

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from arithmetic import artifacts, formats
from arithmetic.artifacts import ArtifactConfig, GrammarConfig
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Operands
from arithmetic.input_profile import profile, write_profile
from arithmetic.model import Transformer
from stages import MODEL, checkpoint, grpo
from stages.checkpoint import Job
from stages.dataset import read_split
from stages.optimizer import ScheduledOptimizers
from stages.params import Train, load_params
from stages.progress import ProgressBar
from stages.workers import SHARDS, Workers, run_workers

HISTORY = Path("metrics/history.csv")
GRPO = Path("metrics/grpo.csv")
METRICS = Path("metrics/training.json")
REPORT = Path("reports/training.json")
VALIDATION_BATCH = 500


@dataclass
class Progress:
    """Hold the state of a training besides model and optimizers.

    Attributes:
        step: steps done.
        history: one row a validation, the columns of metrics/history.csv.
        weights: the model's parameters at the best row.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """Return the index of the row with the smallest validation loss, the first of equals."""
        losses = [row["validation_loss"] for row in self.history]
        return losses.index(min(losses)) if losses else 0

    def is_finished(self, params: Train) -> bool:
        """Return whether all steps are done or a reason to stop early applies."""
        if self.step == params.steps:
            return True
        since_best = len(self.history) - 1 - self.best
        exact_match = self.history[-1]["validation_exact_match"] if self.history else 0.0
        return since_best >= params.early_stopping_patience or (
            params.stop_at_exact_match is not None and exact_match >= params.stop_at_exact_match
        )


def train_and_tune(job: Job, workers: Workers) -> tuple[Progress, grpo.Tuning]:
    """Train, and continue by reinforcement learning if `grpo.steps` is above 0."""
    progress, tuning = train(job, workers), grpo.Tuning()
    if job.params.grpo.steps:
        progress.weights, tuning = grpo.tune(job, progress.weights, workers)
    return progress, tuning


def train(job: Job, workers: Workers) -> Progress:
    """Train from scratch or from the checkpoint; every worker runs this with the same result.

    Raises:
        UserError: the loss is NaN or infinite.
    """
    params = job.params.train
    data, validation = encode(job, job.train), encode(job, job.validation)
    model = Transformer(job.config).initialize(torch.Generator().manual_seed(params.seed))
    optimizers = ScheduledOptimizers(model, params, lambda step: get_phase(params, step)[1])
    progress, loss_sum = Progress(), 0.0
    if saved := checkpoint.load(job.key, model, optimizers):
        progress = Progress(**saved)

    with ProgressBar("train", params.steps, progress.step, is_quiet=workers.rank > 0) as bar:
        while not progress.is_finished(params):
            phase, factor = get_phase(params, progress.step)
            loss_sum += update_gradients(model, job, data, progress.step, workers)
            optimizers.step()
            progress.step += 1
            bar.advance()
            is_phase_end = get_phase(params, progress.step)[0] != phase
            if progress.step % params.validate_every and not is_phase_end:
                continue

            steps = progress.step - (progress.history[-1]["step"] if progress.history else 0)
            row = {
                "step": progress.step,
                "phase": phase,
                "learning_rate": round_significant(params.muon_learning_rate * factor),
                "train_loss": round_significant(loss_sum / steps),
                **validate(model, job, validation, workers),
            }
            loss_sum = 0.0
            progress.history.append(row)
            if progress.best == len(progress.history) - 1:
                progress.weights = {k: v.clone() for k, v in model.state_dict().items()}
            bar.advance(0, describe(row, params.steps))
            if workers.rank == 0:
                checkpoint.save(job.key, model, optimizers, vars(progress))
    return progress


def get_phase(params: Train, step: int) -> tuple[str, float]:
    """Return the phase of `step` (from 0) and its factor of the peak learning rate.

    Warm-up, stable, decay to 0: WSD (Hu et al. 2024, "MiniCPM"); `end` after the last step.
    """
    if step < params.warmup_steps:
        return "warmup", (step + 1) / params.warmup_steps
    if step < params.warmup_steps + params.flat_steps:
        return "flat", 1.0
    if step < params.steps:
        return "decay", (params.steps - step) / params.decay_steps
    return "end", 0.0


def encode(job: Job, split: dict[str, Operands]) -> list[Tensor]:
    """Return the sequences of each format: [N, T] uint8."""
    sequences = []
    for fmt in job.params.generate.formats:
        parts = [
            formats.encode_sequences(operation, *operands, job.grammar.digits)
            for operation, operands in split.items()
            if operation in fmt.operations
        ]
        sequences.append(torch.from_numpy(np.concatenate(parts)))
    return sequences


@lru_cache(maxsize=8)
def shuffle(size: int, *seed: int) -> np.ndarray:
    """Return a random order of `size` rows."""
    return np.random.default_rng(seed).permutation(size)


def choose_batch(job: Job, data: Tensor, fmt: int, step: int, shard: int) -> Tensor:
    """Return one shard of a step's sequences of one format: [about B / 2, T] int64.

    A new order each epoch, whole batches only.
    """
    params = job.params.train
    size = params.batch_sizes[fmt]
    epoch, batch = divmod(step, len(data) // size)
    rows = shuffle(len(data), params.seed, fmt, epoch)[batch * size : (batch + 1) * size]
    half = size // SHARDS
    return data[rows[half:] if shard else rows[:half]].long()


def compute_loss(model: Transformer, job: Job, fmt: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy after the prompt, and the logits [B, T, vocabulary]."""
    logits = model(ids[:, :-1], fmt, first=job.prompt - 1)
    targets = ids[:, job.prompt :]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), logits


def update_gradients(
    model: Transformer, job: Job, data: list[Tensor], step: int, workers: Workers
) -> float:
    """Set every parameter's gradient, the mean over both shards; return the mean loss a token."""

    def compute(shard: int) -> tuple[Tensor, Tensor]:
        parts = [choose_batch(job, part, fmt, step, shard) for fmt, part in enumerate(data)]
        tokens = sum(ids[:, job.prompt :].numel() for ids in parts)
        losses = [compute_loss(model, job, fmt, ids)[0] for fmt, ids in enumerate(parts)]
        loss = torch.stack(losses).sum() / tokens
        return loss, loss.detach()[None]

    return float(workers.average_gradients(model, compute)[1])


@torch.no_grad()
def validate(
    model: Transformer, job: Job, validation: list[Tensor], workers: Workers
) -> dict[str, float]:
    """Return loss and accuracy a token and exact match; raise UserError if the loss diverged."""

    def compute(shard: int) -> Tensor:
        sums = torch.zeros(3, dtype=torch.float64)  # loss, right tokens, right sequences
        for fmt, data in enumerate(validation):
            for ids in data[shard::SHARDS].long().split(VALIDATION_BATCH):
                loss, logits = compute_loss(model, job, fmt, ids)
                hits = logits.argmax(-1) == ids[:, job.prompt :]
                sums += torch.stack([loss.double(), hits.sum(), hits.all(1).sum()])
        return sums

    loss, right, exact = workers.sum_over_shards(compute).tolist()
    tokens = sum(data[:, job.prompt :].numel() for data in validation)
    if not math.isfinite(loss):
        raise UserError(
            f"the training diverged: the validation loss is {loss}",
            "lower train.muon_learning_rate or train.adamw_learning_rate",
        )
    return {
        "validation_loss": round_significant(loss / tokens),
        "validation_token_accuracy": round_significant(right / tokens),
        "validation_exact_match": round_significant(exact / sum(map(len, validation))),
    }


def round_significant(value: float) -> float:
    """Round to six significant digits: short in a diff, and the same on every CPU."""
    return float(f"{value:.6g}")


def describe(row: dict[str, Any], steps: int) -> str:
    """Return one row of the history as a line."""
    return (
        f"step {row['step']:5d}/{steps}  {row['phase']:6s}  lr {row['learning_rate']:<8.3g}  "
        f"loss {row['train_loss']:.2e}  validation {row['validation_loss']:.2e}  "
        f"exact match {row['validation_exact_match']:.4f}"
    )


def write(job: Job, progress: Progress, tuning: grpo.Tuning) -> None:
    """Write the model, the curves, the metric and the report."""
    for path in (MODEL / artifacts.CONFIG, HISTORY, REPORT):
        path.parent.mkdir(exist_ok=True)
    generate = job.params.generate
    grammar = GrammarConfig(operations=generate.operations, max_operand=generate.max_operand)
    config = ArtifactConfig(grammar=grammar, model=job.config)
    artifacts.write_config(MODEL / artifacts.CONFIG, config)
    save_file(progress.weights, MODEL / artifacts.WEIGHTS)
    write_profile(MODEL, profile(job.train, job.grammar))
    best = progress.history[progress.best]
    rows = [{**row, "best": int(row is best)} for row in progress.history]
    pd.DataFrame(rows).to_csv(HISTORY, index=False, lineterminator="\n")
    curves = pd.DataFrame(tuning.rows, columns=grpo.COLUMNS)
    curves.to_csv(GRPO, index=False, lineterminator="\n", float_format="%.6g")
    metrics = {"parameters": sum(tensor.numel() for tensor in progress.weights.values())}
    report = {
        **metrics,
        "steps": progress.step,
        "stopped_early": progress.step < job.params.train.steps,
        "best_step": best["step"],
        **{key: value for key, value in best.items() if key.startswith("validation_")},
        **({"grpo": tuning.report} if tuning.report else {}),
    }
    for path, content in ((METRICS, metrics), (REPORT, report)):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the stage."""
    with cli_errors():
        params = load_params()
        splits = [read_split(name, params.generate.grammar) for name in ("train", "validation")]
        job = Job(params, *splits)
        with checkpoint.exclusive():  # until the outputs are written
            progress, tuning = run_workers(train_and_tune, job)
            write(job, progress, tuning)


if __name__ == "__main__":
    main()
