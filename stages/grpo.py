"""Improve a trained model by reinforcement learning with a verifiable reward: GRPO.

The train stage calls this where `grpo.steps` is above 0. A step samples a group of answers to each
of some training equations and rewards the exact ones; the written steps earn nothing. It follows
the policy gradient of each answer's advantage over its group, and a penalty (KL) keeps the model
near the supervised one.

Group Relative Policy Optimization: Shao et al. 2024, "DeepSeekMath". Advantages are not divided by
the group's standard deviation: Liu et al. 2025, "Understanding R1-Zero-Like Training" (Dr. GRPO).
There is one update a rollout, so no ratio of policies to clip.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arithmetic import formats
from arithmetic.decoding import generate
from arithmetic.errors import UserError
from arithmetic.grammar import Grammar, Operands
from arithmetic.model import Transformer
from stages import checkpoint
from stages.checkpoint import Job
from stages.optimizer import ScheduledOptimizers
from stages.params import Grpo
from stages.progress import ProgressBar
from stages.workers import SHARDS, Workers

CHECKPOINT = Path(".checkpoints/grpo.pt")
LOG_EVERY = 10  # steps
COUNTED_BATCH = 1_000
STREAM = 1  # tells the random numbers from those of the batches
ROLLOUT = ("reward", "pass_at_group", "without_signal", "kl", "entropy")
GREEDY = ("exact_match", "hallucination", "infinite_generation")
COLUMNS = ["step", "operation", *ROLLOUT, "gradient_norm", "learning_rate", *GREEDY]


@dataclass
class Tuning:
    """Hold the state besides model and optimizers.

    Attributes:
        rows: of metrics/grpo.csv; means over the steps since the row before.
        report: errors of the domain (of the validation split where it is too large to list).
    """

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, int] = field(default_factory=dict)


def tune(
    job: Job, weights: dict[str, Tensor], workers: Workers
) -> tuple[dict[str, Tensor], Tuning]:
    """Continue from the supervised `weights` or the checkpoint; return the new weights.

    Every worker runs this with the same result.

    Raises:
        UserError: the gradient is NaN or infinite.
    """
    params = job.params.grpo
    model = Transformer(job.config)
    model.load_state_dict(weights)
    reference = copy.deepcopy(model).requires_grad_(False)
    questions = repeat_mistakes(reference, job) if params.mistake_copies else job.train
    optimizers = ScheduledOptimizers(
        model, job.params.train, lambda step: get_learning_rate_factor(params, step)
    )
    tuning, sums = Tuning(), torch.zeros(len(questions), len(ROLLOUT))
    if saved := checkpoint.load(job.key, model, optimizers, CHECKPOINT):
        tuning = Tuning(**saved)
    else:
        tuning.report = count_domain(model, job, workers, "before")
        tuning.rows = [{"step": 0, **row} for row in validate(model, job, workers)]

    with ProgressBar("grpo", params.steps, tuning.step, is_quiet=workers.rank > 0) as bar:
        while tuning.step < params.steps:
            factor = get_learning_rate_factor(params, tuning.step)
            norm, statistics = update_gradients(
                model, reference, job, questions, tuning.step, workers
            )
            sums += statistics
            optimizers.step()
            tuning.step += 1
            bar.advance()
            if tuning.step % LOG_EVERY and tuning.step < params.steps:
                continue
            means = sums / (tuning.step - tuning.rows[-1]["step"])
            general = {"step": tuning.step, "gradient_norm": norm}
            general["learning_rate"] = job.params.train.muon_learning_rate * factor
            for row, values in zip(validate(model, job, workers), means.tolist(), strict=True):
                rollout = dict(zip(ROLLOUT, values, strict=True))
                tuning.rows.append({**general, **rollout, **row})
            sums.zero_()
            latest = tuning.rows[-len(questions) :]
            shares = [f"{row['operation']} exact match {row['exact_match']:.4f}" for row in latest]
            bar.advance(0, f"step {tuning.step:4d}/{params.steps}  {'  '.join(shares)}")
            if workers.rank == 0:
                checkpoint.save(job.key, model, optimizers, vars(tuning), CHECKPOINT)
    tuning.report |= count_domain(model, job, workers, "after")
    return model.state_dict(), tuning


def get_learning_rate_factor(params: Grpo, step: int) -> float:
    """Return the factor of train's learning rates at `step`: warm-up, then decay to 0."""
    decay = (params.steps - step) / params.steps
    return params.learning_rate_factor * min((step + 1) / params.warmup_steps, decay)


def update_gradients(
    model: Transformer,
    reference: Transformer,
    job: Job,
    questions: dict[str, Operands],
    step: int,
    workers: Workers,
) -> tuple[float, Tensor]:
    """Set every parameter's gradient, clipped.

    Returns:
        The norm before clipping, and the means of ROLLOUT: [operations, statistics].
    """

    def compute(shard: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([job.params.train.seed, STREAM, step, shard])
        parts = [roll_out(model, reference, job, *item, rng) for item in questions.items()]
        losses, statistics = zip(*parts, strict=True)
        return torch.stack(losses).mean(), torch.cat(statistics)

    gradient, statistics = workers.average_gradients(model, compute)
    norm = math.sqrt(float((gradient * gradient).sum()))
    if not math.isfinite(norm):
        raise UserError(
            f"the reinforcement learning diverged: the gradient's norm is {norm}",
            "lower grpo.learning_rate_factor",
        )
    gradient *= min(1.0, job.params.grpo.max_gradient_norm / (norm + 1e-12))
    return norm, statistics.view(-1, len(ROLLOUT))


def roll_out(
    model: Transformer,
    reference: Transformer,
    job: Job,
    operation: str,
    questions: Operands,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Sample groups of answers; return the loss of one shard and the values of ROLLOUT."""
    params, (fmt, lengths) = job.params.grpo, formats.locate(operation, job.grammar)
    groups = params.questions // len(job.grammar.operations) // SHARDS
    rows = rng.integers(len(questions[0]), size=groups).repeat(params.group_size)
    a, b = (operand[rows] for operand in questions)
    prompts = formats.encode_prompts(operation, a, b, job.grammar.digits)
    uniforms = torch.from_numpy(rng.random((len(rows), lengths.generated), np.float32))
    ids = torch.from_numpy(prompts).long()
    ids = torch.cat([ids, generate(model, fmt, ids, lengths.generated, uniforms)], 1)

    rewards = compute_rewards(operation, a, b, ids[:, lengths.prompt :].numpy(), job.grammar)
    rewards = rewards.view(groups, params.group_size)
    advantages = (rewards - rewards.mean(1, keepdim=True)).view(-1, 1)  # 0 where all are equal
    log_p, entropy = score(model, fmt, ids, lengths.prompt)
    with torch.no_grad():
        log_p_reference, _ = score(reference, fmt, ids, lengths.prompt)
    kl = estimate_kl(log_p, log_p_reference)
    loss = (params.kl_weight * kl - advantages * log_p).mean()
    solved = rewards.mean(1)
    is_mixed = (solved > 0) & (solved < 1)
    parts = (rewards, solved > 0, ~is_mixed, kl.detach(), entropy)
    return loss, torch.stack([part.float().mean() for part in parts])


def compute_rewards(
    operation: str, a: np.ndarray, b: np.ndarray, generated: np.ndarray, grammar: Grammar
) -> Tensor:
    """Return 1 for the exact answer with its end, else 0: [N] float32."""
    graded = formats.grade(operation, a, b, generated, grammar)
    return torch.tensor([float(not outcome.wrong) for _, outcome in graded])


def score(model: Transformer, fmt: int, ids: Tensor, prompt: int) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each generated token, and the entropy there: [N, T] each."""
    log_p = F.log_softmax(model(ids[:, :-1], fmt, first=prompt - 1), -1)
    entropy = -(log_p.detach().exp() * log_p.detach()).sum(-1)
    return log_p.gather(-1, ids[:, prompt:, None]).squeeze(-1), entropy


def estimate_kl(log_p: Tensor, log_p_reference: Tensor) -> Tensor:
    """Return the estimate k3 of the KL divergence from the reference, at each token.

    Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    ratio = log_p_reference - log_p
    return ratio.exp() - ratio - 1


@torch.no_grad()
def find_failures(
    model: Transformer, grammar: Grammar, operation: str, operands: Operands
) -> Iterator[tuple[int, formats.Outcome]]:
    """Decode greedily; yield row and outcome of each wrong answer.

    As in `stages.certify`, what a teacher-forced pass certifies is not decoded.
    """
    (fmt, lengths), (a, b) = formats.locate(operation, grammar), operands
    for start in range(0, len(a), COUNTED_BATCH):
        rows = slice(start, start + COUNTED_BATCH)
        sequences = formats.encode_sequences(operation, a[rows], b[rows], grammar.digits)
        ids = torch.from_numpy(sequences).long()
        predicted = model(ids[:, :-1], fmt, first=lengths.prompt - 1).argmax(-1)
        unsure = (predicted != ids[:, lengths.prompt :]).any(1)
        prompts = ids[unsure, : lengths.prompt]
        generated = generate(model, fmt, prompts, lengths.generated).numpy()
        places = start + np.flatnonzero(unsure.numpy())
        graded = formats.grade(operation, a[places], b[places], generated, grammar)
        for row, (_, outcome) in zip(places.tolist(), graded, strict=True):
            if outcome.wrong:
                yield row, outcome


def repeat_mistakes(model: Transformer, job: Job) -> dict[str, Operands]:
    """Return the training equations with copies of those that the model gets wrong."""
    questions = {}
    for operation, (a, b) in job.train.items():
        wrong = [row for row, _ in find_failures(model, job.grammar, operation, (a, b))]
        copies = np.repeat(np.array(wrong, np.int64), job.params.grpo.mistake_copies)
        questions[operation] = np.append(a, a[copies]), np.append(b, b[copies])
    return questions


def count_failures(
    model: Transformer, grammar: Grammar, equations: dict[str, Operands], workers: Workers
) -> np.ndarray:
    """Count wrong answers, no integers and answers without an end: [operations, 3]."""

    def compute(shard: int) -> Tensor:
        counts = torch.zeros(len(equations), 3, dtype=torch.int64)
        for row, (operation, operands) in zip(counts, equations.items(), strict=True):
            a, b = (operand[shard::SHARDS] for operand in operands)
            for _, outcome in find_failures(model, grammar, operation, (a, b)):
                row += torch.tensor(outcome[:3])
        return counts

    return workers.sum_over_shards(compute).numpy()


def validate(model: Transformer, job: Job, workers: Workers) -> list[dict[str, Any]]:
    """Return the shares GREEDY of the validation equations of each operation."""
    counts = count_failures(model, job.grammar, job.validation, workers)
    rows = []
    for (operation, (a, _)), row in zip(job.validation.items(), counts, strict=True):
        wrong, hallucination, endless = (row / len(a)).tolist()
        shares = dict(zip(GREEDY, (1 - wrong, hallucination, endless), strict=True))
        rows.append({"operation": operation, **shares})
    return rows


def count_domain(model: Transformer, job: Job, workers: Workers, when: str) -> dict[str, int]:
    """Return the errors in all equations; in the validation split of a domain too large."""
    equations = job.validation
    if job.grammar.is_listed:
        equations = {name: job.grammar.equations(name) for name in job.grammar.operations}
    errors = int(count_failures(model, job.grammar, equations, workers)[:, 0].sum())
    total = sum(len(a) for a, _ in equations.values())
    if workers.rank == 0:
        print(f"grpo: {errors:,} errors in {total:,} equations {when}", flush=True)
    return {"equations": total, f"errors_{when}": errors}
