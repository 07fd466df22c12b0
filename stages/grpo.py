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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arithmetic import formats
from arithmetic.artifacts import ModelConfig
from arithmetic.decoding import decode_by_sampling, decode_greedily
from arithmetic.errors import UserError
from arithmetic.grammar import Grammar, Operands
from arithmetic.model import Transformer
from stages import checkpoint, stop_if_orphaned
from stages.optimizer import ScheduledOptimizers
from stages.params import Grpo, Train
from stages.progress import ProgressBar
from stages.workers import SHARDS, Workers

CHECKPOINT = Path(".checkpoints/grpo.pt")
LOG_EVERY = 10  # steps
COUNTED_BATCH = 1_000
STREAM = 1  # tells the random numbers from those of the batches
ROLLOUT = ("reward", "pass_at_group", "without_signal", "kl", "entropy")
GREEDY = ("exact_match", "hallucination", "infinite_generation")
COLUMNS = ["step", "operation", *ROLLOUT, "gradient_norm", "learning_rate", *GREEDY]


@dataclass(frozen=True)
class Setup:
    """Hold everything besides the supervised model that decides the result.

    Attributes:
        train: its optimizers and seed are used here too.
        questions, validation: equations by operation, to ask and to count errors in.
    """

    params: Grpo
    train: Train
    grammar: Grammar
    questions: dict[str, Operands]
    validation: dict[str, Operands]

    def learning_rate_factor(self, step: int) -> float:
        """Return the factor of train's learning rates at `step`: warm-up, then decay to 0."""
        decay = (self.params.steps - step) / self.params.steps
        return self.params.learning_rate_factor * min((step + 1) / self.params.warmup_steps, decay)


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
    config: ModelConfig, weights: dict[str, Tensor], setup: Setup, key: str, workers: Workers
) -> tuple[dict[str, Tensor], Tuning]:
    """Continue from the supervised `weights` or the checkpoint; return the new weights.

    Every worker runs this with the same result.

    Raises:
        UserError: the gradient is NaN or infinite, or `dvc` was killed.
    """
    params, operations = setup.params, setup.grammar.operations
    model = Transformer(config)
    model.load_state_dict(weights)
    reference = copy.deepcopy(model).requires_grad_(False)
    optimizers = ScheduledOptimizers(model, setup.train, setup.learning_rate_factor)
    if params.mistake_copies:
        setup = add_mistakes(reference, setup)
    tuning, sums = Tuning(), torch.zeros(len(operations), len(ROLLOUT))
    if saved := checkpoint.load(key, model, optimizers, CHECKPOINT):
        tuning = Tuning(**saved)
    else:
        tuning.report = count_domain(model, setup, workers, "before")
        tuning.rows += [
            {"step": 0, "operation": operation, **validate(model, setup, operation, workers)}
            for operation in operations
        ]

    with ProgressBar("grpo", params.steps, tuning.step, is_quiet=workers.rank > 0) as bar:
        while tuning.step < params.steps:
            stop_if_orphaned()
            factor = setup.learning_rate_factor(tuning.step)
            norm, statistics = update_gradients(model, reference, setup, tuning.step, workers)
            sums += statistics
            optimizers.step()
            tuning.step += 1
            bar.advance()
            if tuning.step % LOG_EVERY and tuning.step < params.steps:
                continue
            means = sums / (tuning.step - tuning.rows[-1]["step"])
            for operation, values in zip(operations, means.tolist(), strict=True):
                row = {"step": tuning.step, "operation": operation}
                row |= dict(zip(ROLLOUT, values, strict=True))
                row |= {"gradient_norm": norm}
                row |= {"learning_rate": setup.train.muon_learning_rate * factor}
                tuning.rows.append(row | validate(model, setup, operation, workers))
            sums.zero_()
            bar.advance(0, describe(tuning, params.steps, len(operations)))
            if workers.rank == 0:
                checkpoint.save(key, model, optimizers, vars(tuning), CHECKPOINT)
    tuning.report |= count_domain(model, setup, workers, "after")
    return model.state_dict(), tuning


def update_gradients(
    model: Transformer, reference: Transformer, setup: Setup, step: int, workers: Workers
) -> tuple[float, Tensor]:
    """Set every parameter's gradient, clipped; return its norm and the means of ROLLOUT.

    Returns:
        The norm before clipping, and the means by operation: [operations, statistics].
    """

    def compute(shard: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([setup.train.seed, STREAM, step, shard])
        parts = [roll_out(model, reference, setup, name, rng) for name in setup.grammar.operations]
        losses, statistics = zip(*parts, strict=True)
        return torch.stack(losses).mean(), torch.cat(statistics)

    statistics = workers.average_gradients(model, compute)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    gradient = torch.cat([part.flatten() for part in gradients])
    norm = math.sqrt(float((gradient * gradient).sum()))
    if not math.isfinite(norm):
        raise UserError(
            f"the reinforcement learning diverged: the gradient's norm is {norm}",
            "lower grpo.learning_rate_factor",
        )
    for part in gradients:
        part *= min(1.0, setup.params.max_gradient_norm / (norm + 1e-12))
    return norm, statistics.view(-1, len(ROLLOUT))


def roll_out(
    model: Transformer,
    reference: Transformer,
    setup: Setup,
    operation: str,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Sample groups of answers; return the loss of one shard and the values of ROLLOUT."""
    fmt, lengths = formats.locate(operation, setup.grammar)
    size = setup.params.group_size
    groups = setup.params.questions // len(setup.grammar.operations) // SHARDS
    a, b = setup.questions[operation]
    rows = rng.integers(len(a), size=groups).repeat(size)
    a, b = a[rows], b[rows]
    prompts = formats.encode_prompts(operation, a, b, setup.grammar.digits)
    uniforms = torch.from_numpy(rng.random((len(rows), lengths.generated), np.float32))
    ids = torch.from_numpy(prompts).long()
    ids = torch.cat([ids, decode_by_sampling(model, fmt, ids, uniforms)], 1)

    rewards = compute_rewards(operation, a, b, ids[:, lengths.prompt :].numpy(), setup.grammar)
    rewards = rewards.view(groups, size)
    advantages = (rewards - rewards.mean(1, keepdim=True)).view(-1, 1)  # 0 where all are equal
    log_p, entropy = score(model, fmt, ids, lengths.prompt)
    with torch.no_grad():
        log_p_reference, _ = score(reference, fmt, ids, lengths.prompt)
    kl = estimate_kl(log_p, log_p_reference)
    loss = (setup.params.kl_weight * kl - advantages * log_p).mean()
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
    model: Transformer, setup: Setup, operation: str, operands: Operands
) -> Iterator[tuple[int, formats.Outcome]]:
    """Decode greedily; yield row and outcome of each wrong answer.

    As in `stages.certify`, what a teacher-forced pass certifies is not decoded.
    """
    (fmt, lengths), (a, b) = formats.locate(operation, setup.grammar), operands
    for start in range(0, len(a), COUNTED_BATCH):
        stop_if_orphaned()
        rows = slice(start, start + COUNTED_BATCH)
        sequences = formats.encode_sequences(operation, a[rows], b[rows], setup.grammar.digits)
        ids = torch.from_numpy(sequences).long()
        predicted = model(ids[:, :-1], fmt, first=lengths.prompt - 1).argmax(-1)
        unsure = (predicted != ids[:, lengths.prompt :]).any(1)
        prompts = ids[unsure, : lengths.prompt]
        generated = decode_greedily(model, fmt, prompts, lengths.generated).numpy()
        places = start + np.flatnonzero(unsure.numpy())
        graded = formats.grade(operation, a[places], b[places], generated, setup.grammar)
        for row, (_, outcome) in zip(places.tolist(), graded, strict=True):
            if outcome.wrong:
                yield row, outcome


def add_mistakes(model: Transformer, setup: Setup) -> Setup:
    """Return the setup with copies of the questions that the model gets wrong."""
    questions = {}
    for operation, (a, b) in setup.questions.items():
        wrong = [row for row, _ in find_failures(model, setup, operation, (a, b))]
        copies = np.repeat(np.array(wrong, np.int64), setup.params.mistake_copies)
        questions[operation] = np.append(a, a[copies]), np.append(b, b[copies])
    return replace(setup, questions=questions)


def count_failures(
    model: Transformer, setup: Setup, operation: str, operands: Operands, workers: Workers
) -> list[int]:
    """Return the counts of wrong answers, of no integers and of answers without an end."""

    def compute(shard: int) -> Tensor:
        a, b = (operand[shard::SHARDS] for operand in operands)
        outcomes = [outcome[:3] for _, outcome in find_failures(model, setup, operation, (a, b))]
        return torch.tensor(outcomes, dtype=torch.int64).reshape(-1, 3).sum(0)

    return workers.sum_over_shards(compute).tolist()


def validate(
    model: Transformer, setup: Setup, operation: str, workers: Workers
) -> dict[str, float]:
    """Return the shares GREEDY of the operation's validation equations."""
    operands = setup.validation[operation]
    counts = count_failures(model, setup, operation, operands, workers)
    wrong, hallucination, endless = (count / len(operands[0]) for count in counts)
    return dict(zip(GREEDY, (1 - wrong, hallucination, endless), strict=True))


def count_domain(model: Transformer, setup: Setup, workers: Workers, when: str) -> dict[str, int]:
    """Return the errors in all equations; in the validation split of a domain too large."""
    grammar = setup.grammar
    errors = equations = 0
    for operation in grammar.operations:
        listed = grammar.equations(operation) if grammar.is_listed else setup.validation[operation]
        errors += count_failures(model, setup, operation, listed, workers)[0]
        equations += len(listed[0])
    if workers.rank == 0:
        print(f"grpo: {errors:,} errors in {equations:,} equations {when}", flush=True)
    return {"equations": equations, f"errors_{when}": errors}


def describe(tuning: Tuning, steps: int, operations: int) -> str:
    """Return the latest rows as a line."""
    parts = [
        f"{row['operation']} reward {row['reward']:.3f} kl {row['kl']:.3f} "
        f"exact match {row['exact_match']:.4f}"
        for row in tuning.rows[-operations:]
    ]
    return f"step {tuning.step:4d}/{steps}  {'  '.join(parts)}"
