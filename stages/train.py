"""Train the model: `python -m stages.train`.

Reads   params.yaml (`model`, `train`, `grpo`, the domain), data/train.csv, data/validation.csv
Writes  model/config.json, model/model.safetensors, model/input_profile.json, metrics/history.csv,
        metrics/grpo.csv, metrics/training.json, reports/training.json

Validation is teacher-forced: where the argmax is the next token of the reference everywhere, greedy
decoding would generate that reference.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from arithmetic import artifacts, formats
from arithmetic.artifacts import ArtifactConfig, GrammarConfig, ModelConfig
from arithmetic.errors import InvalidParamsError, UserError, cli_errors
from arithmetic.formats import SequenceFormat
from arithmetic.grammar import Operands
from arithmetic.input_profile import profile, write_profile
from arithmetic.model import Transformer
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages import MODEL, checkpoint, grpo, stop_if_orphaned
from stages.dataset import read_split
from stages.optimizer import ScheduledOptimizers
from stages.params import Params, Train, load_params
from stages.progress import ProgressBar
from stages.workers import SHARDS, Workers, run_workers

HISTORY = Path("metrics/history.csv")
GRPO = Path("metrics/grpo.csv")
METRICS = Path("metrics/training.json")
REPORT = Path("reports/training.json")
VALIDATION_BATCH = 500


@dataclass
class Job:
    """Hold everything that decides the result of a training.

    Attributes:
        config: the model's shape.
        params: the optimization.
        prompt_length: tokens of a prompt; the loss is taken on what follows.
        train, validation: sequences of each format, [N, T] uint8.
        grpo: the reinforcement learning that follows, if any.
    """

    config: ModelConfig
    params: Train
    prompt_length: int
    train: list[Tensor]
    validation: list[Tensor]
    grpo: grpo.Setup | None

    def digest(self) -> str:
        """Return the SHA-256 over the job and the code: the key of its checkpoint."""
        shape = [self.config.model_dump(), self.params.model_dump(), self.prompt_length]
        if self.grpo:
            shape.append(self.grpo.params.model_dump())
        result = hashlib.sha256(json.dumps(shape).encode())
        for data in (*self.train, *self.validation):
            result.update(repr(data.shape).encode() + data.numpy().tobytes())
        root = Path(__file__).parents[1]
        for path in sorted([*root.glob("arithmetic/*.py"), *root.glob("stages/*.py")]):
            result.update(path.name.encode() + path.read_bytes())
        result.update(f"{torch.__version__} {np.__version__}".encode())
        return result.hexdigest()


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
    if job.grpo:
        progress.weights, tuning = grpo.tune(
            job.config, progress.weights, job.grpo, job.digest(), workers
        )
    return progress, tuning


def train(job: Job, workers: Workers) -> Progress:
    """Train from scratch or from the checkpoint; every worker runs this with the same result.

    Raises:
        UserError: the loss is NaN or infinite, or `dvc` was killed.
    """
    params, batches = job.params, Batches(job)
    model = Transformer(job.config).initialize(torch.Generator().manual_seed(params.seed))
    optimizers = ScheduledOptimizers(model, params, lambda step: get_phase(params, step)[1])
    progress, key, loss_sum = Progress(), job.digest(), 0.0
    if saved := checkpoint.load(key, model, optimizers):
        progress = Progress(**saved)

    with ProgressBar("train", params.steps, progress.step, is_quiet=workers.rank > 0) as bar:
        while not progress.is_finished(params):
            stop_if_orphaned()
            phase, factor = get_phase(params, progress.step)
            loss_sum += update_gradients(model, job, batches, progress.step, workers)
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
                **validate(model, job, workers),
            }
            loss_sum = 0.0
            progress.history.append(row)
            if progress.best == len(progress.history) - 1:
                progress.weights = {k: v.clone() for k, v in model.state_dict().items()}
            bar.advance(0, describe(row, params.steps))
            if workers.rank == 0:
                checkpoint.save(key, model, optimizers, vars(progress))
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


class Batches:
    """Choose the equations of each step: a new order each epoch, whole batches only."""

    def __init__(self, job: Job):
        self.data, self.sizes, self.seed = job.train, job.params.batch_sizes, job.params.seed
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def get(self, fmt: int, step: int, shard: int) -> Tensor:
        """Return one shard's sequences of one format: [about B / 2, T] int64."""
        size = self.sizes[fmt]
        epoch, batch = divmod(step, len(self.data[fmt]) // size)
        if self._orders.get(fmt, (-1, None))[0] != epoch:
            rng = np.random.default_rng([self.seed, fmt, epoch])
            self._orders[fmt] = epoch, rng.permutation(len(self.data[fmt]))
        rows = self._orders[fmt][1][batch * size : (batch + 1) * size]
        half = size // SHARDS
        return self.data[fmt][rows[half:] if shard else rows[:half]].long()


def compute_loss(model: Transformer, job: Job, fmt: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy after the prompt, and the logits [B, T, vocabulary]."""
    logits = model(ids[:, :-1], fmt, first=job.prompt_length - 1)
    targets = ids[:, job.prompt_length :]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), logits


def update_gradients(
    model: Transformer, job: Job, batches: Batches, step: int, workers: Workers
) -> float:
    """Set every parameter's gradient, the mean over both shards; return the mean loss a token."""

    def compute(shard: int) -> tuple[Tensor, Tensor]:
        parts = [batches.get(fmt, step, shard) for fmt in range(len(batches.data))]
        tokens = sum(ids[:, job.prompt_length :].numel() for ids in parts)
        losses = [compute_loss(model, job, fmt, ids)[0] for fmt, ids in enumerate(parts)]
        loss = torch.stack(losses).sum() / tokens
        return loss, loss.detach()[None]

    return float(workers.average_gradients(model, compute))


@torch.no_grad()
def validate(model: Transformer, job: Job, workers: Workers) -> dict[str, float]:
    """Return loss and accuracy a token and exact match; raise UserError if the loss diverged."""

    def compute(shard: int) -> Tensor:
        sums = torch.zeros(3, dtype=torch.float64)  # loss, right tokens, right sequences
        for fmt, data in enumerate(job.validation):
            for ids in data[shard::SHARDS].long().split(VALIDATION_BATCH):
                loss, logits = compute_loss(model, job, fmt, ids)
                hits = logits.argmax(-1) == ids[:, job.prompt_length :]
                sums += torch.stack([loss.double(), hits.sum(), hits.all(1).sum()])
        return sums

    loss, right, exact = workers.sum_over_shards(compute).tolist()
    tokens = sum(data[:, job.prompt_length :].numel() for data in job.validation)
    if not math.isfinite(loss):
        raise UserError(
            f"the training diverged: the validation loss is {loss}",
            "lower train.muon_learning_rate or train.adamw_learning_rate",
        )
    return {
        "validation_loss": round_significant(loss / tokens),
        "validation_token_accuracy": round_significant(right / tokens),
        "validation_exact_match": round_significant(exact / sum(map(len, job.validation))),
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


def build_job(params: Params, train: dict[str, Operands], validation: dict[str, Operands]) -> Job:
    """Encode the data and derive the model's shape: vocabulary and sequence lengths."""
    grammar, all_formats = params.generate.grammar, params.generate.formats
    lengths = [fmt.lengths(grammar.digits) for fmt in all_formats]
    config = ModelConfig(
        vocabulary_size=VOCABULARY_SIZE,
        # The last token, END, is predicted and never read.
        sequence_lengths=[part.prompt + part.generated - 1 for part in lengths],
        **params.model.model_dump(),
    )

    def encode(split: dict[str, Operands], fmt: SequenceFormat) -> Tensor:
        parts = [
            formats.encode_sequences(operation, *operands, grammar.digits)
            for operation, operands in split.items()
            if operation in fmt.operations
        ]
        return torch.from_numpy(np.concatenate(parts))

    setup = grpo.Setup(params.grpo, params.train, grammar, train, validation)
    job = Job(
        config,
        params.train,
        lengths[0].prompt,
        train=[encode(train, fmt) for fmt in all_formats],
        validation=[encode(validation, fmt) for fmt in all_formats],
        grpo=setup if params.grpo.steps else None,
    )
    for fmt, rows, size in zip(all_formats, job.train, params.train.batch_sizes, strict=True):
        if len(rows) < size:
            raise InvalidParamsError(
                f"train.batch_sizes has {size} for {fmt.name}, which has {len(rows)} equations",
                "lower it or raise generate.train_size",
            )
    return job


def write(
    progress: Progress,
    tuning: grpo.Tuning,
    job: Job,
    params: Params,
    train_data: dict[str, Operands],
) -> None:
    """Write the model, the curves, the metric and the report."""
    for path in (MODEL / artifacts.CONFIG, HISTORY, REPORT):
        path.parent.mkdir(exist_ok=True)
    generate = params.generate
    grammar = GrammarConfig(operations=generate.operations, max_operand=generate.max_operand)
    config = ArtifactConfig(grammar=grammar, model=job.config)
    artifacts.write_config(MODEL / artifacts.CONFIG, config)
    save_file(progress.weights, MODEL / artifacts.WEIGHTS)
    write_profile(MODEL, profile(train_data, generate.grammar))
    best = progress.history[progress.best]
    rows = [{**row, "best": int(row is best)} for row in progress.history]
    pd.DataFrame(rows).to_csv(HISTORY, index=False, lineterminator="\n")
    curves = pd.DataFrame(tuning.rows, columns=grpo.COLUMNS)
    curves.to_csv(GRPO, index=False, lineterminator="\n", float_format="%.6g")
    metrics = {"parameters": sum(tensor.numel() for tensor in progress.weights.values())}
    report = {
        **metrics,
        "steps": progress.step,
        "stopped_early": progress.step < params.train.steps,
        "best_step": best["step"],
        **{key: value for key, value in best.items() if key.startswith("validation_")},
        **({"grpo": tuning.report} if job.grpo else {}),
    }
    for path, content in ((METRICS, metrics), (REPORT, report)):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the stage."""
    with cli_errors():
        params = load_params()
        grammar = params.generate.grammar
        train_data = read_split("train", grammar)
        job = build_job(params, train_data, read_split("validation", grammar))
        with checkpoint.exclusive():  # until the outputs are written
            progress, tuning = run_workers(train_and_tune, job)
            stop_if_orphaned()
            write(progress, tuning, job, params, train_data)


if __name__ == "__main__":
    main()
