"""Reinforcement learning follows the exact-match reward, in the same bytes every time."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from arithmetic import formats
from arithmetic.decoding import generate
from arithmetic.errors import UserError
from arithmetic.grammar import Grammar
from arithmetic.model import Transformer, load_model
from stages import checkpoint, grpo, train
from stages.certify import Equations, classify
from stages.checkpoint import Job
from stages.params import load_params
from stages.train import train_and_tune
from stages.workers import Workers, run_workers
from tests.random_models import random_model

CHANGES = {"steps": 12, "questions": 16, "group_size": 4}


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job("grpo", **CHANGES, kl_weight=0.0)


def test_reward_is_what_evaluation_counts_as_right():
    """Right sequences with one or two other tokens, in steps, answer or end."""
    grammar, rng = Grammar(("+", "-"), 99), np.random.default_rng(1)
    fmt, rewards = formats.get_format("-"), []
    for operation in grammar.operations:
        a, b = rng.integers(0, 100, (2, 3000))
        lengths = fmt.lengths(grammar.digits)
        ids = formats.encode_sequences(operation, a, b, grammar.digits)[:, lengths.prompt :]
        for _ in range(2):
            places = rng.integers(0, 2 * ids.shape[1], len(ids))  # half of them unchanged
            rows = np.flatnonzero(places < ids.shape[1])
            ids[rows, places[rows]] = rng.integers(0, 15, len(rows))
        reward = grpo.compute_rewards(operation, a, b, ids, grammar).numpy()
        outcomes = classify(Equations(operation, a, b), ids, grammar)
        assert ((reward == 0) == outcomes["wrong"]).all()
        whole = formats.encode_sequences(operation, a, b, grammar.digits)[:, lengths.prompt :]
        is_same = (whole == ids)[:, lengths.scratchpad :].all(1)
        assert (reward == is_same).all()
        rewards.append(reward)
    assert 0.3 < np.mean(rewards) < 0.9


def test_sampling_follows_the_distribution():
    """Evenly spaced uniforms: each token as often as its probability says, give or take one."""
    model = random_model("+", 1, "dot_product")
    prompts = torch.from_numpy(formats.encode_prompts("+", np.array([3]), np.array([4]), 1)).long()
    count = 5000
    uniforms = ((torch.arange(count) + 0.5) / count)[:, None]
    ids = generate(model, 0, prompts.expand(count, -1), 1, uniforms)
    with torch.no_grad():
        expected = torch.softmax(model(prompts, 0)[0, -1], -1) * count
    seen = torch.bincount(ids[:, 0], minlength=len(expected))
    assert (seen - expected).abs().max() < 1.5
    edges = torch.tensor([[0.0], [1 - 2**-24]])
    assert generate(model, 0, prompts.expand(2, -1), 1, edges).max() < len(expected)


@pytest.fixture
def model(workspace: Path) -> Transformer:
    return load_model(Path("model")).train()


def test_divergence_is_zero_before_the_first_step(job, model):
    for operation, questions in job.train.items():
        rng = np.random.default_rng(1)
        reference = copy.deepcopy(model)
        _, values = grpo.roll_out(model, reference, job, operation, questions, rng)
        assert values[grpo.ROLLOUT.index("kl")] == 0


def test_groups_of_equal_rewards_contribute_nothing(job, model, monkeypatch):
    def gradient() -> torch.Tensor:
        rng = np.random.default_rng(1)
        loss, _ = grpo.roll_out(model, model, job, "+", job.train["+"], rng)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])

    compute = grpo.compute_rewards
    for value in (0.0, 1.0):
        monkeypatch.setattr(grpo, "compute_rewards", lambda *a, v=value: 0 * compute(*a) + v)
        assert not gradient().any()
    monkeypatch.setattr(grpo, "compute_rewards", compute)
    assert gradient().any()


def test_mistakes_are_asked_more_often(make_job, model):
    job = make_job("grpo", mistake_copies=3)
    more = grpo.repeat_mistakes(model, job)
    for operation, (a, b) in job.train.items():
        failures = list(grpo.find_failures(model, job.grammar, operation, (a, b)))
        rows = [row for row, _ in failures]
        assert 0 < len(rows) < len(a)
        assert all(outcome.wrong for _, outcome in failures)
        expected = [x + y for x, y in zip(a[rows], b[rows], strict=True)]
        added = [part[len(a) :] for part in more[operation]]
        assert len(added[0]) == 3 * len(rows)
        assert sorted(set(added[0] + added[1])) == sorted(set(expected))


def test_learning_rate_warms_up_and_decays_to_zero(make_job):
    changes = {"steps": 10, "warmup_steps": 2, "learning_rate_factor": 0.5}
    params = make_job("grpo", **changes).params.grpo
    factors = [grpo.get_learning_rate_factor(params, step) for step in range(11)]
    assert factors[0] == 0.25
    assert factors[1:] == pytest.approx([0.5 * (10 - step) / 10 for step in range(1, 11)])


def test_one_core_two_and_a_resumed_run_give_the_same_bytes(make_job, monkeypatch):
    def run() -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, int]]:
        progress, tuning = run_workers(train_and_tune, make_job("grpo", **CHANGES))
        for path in checkpoint.CHECKPOINT.parent.glob("*.pt"):
            path.unlink()
        return progress.weights, tuning.rows, tuning.report

    def assert_equal(first: Any, second: Any) -> None:
        assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
        assert pd.DataFrame(first[1]).equals(pd.DataFrame(second[1]))
        assert first[2] == second[2]

    whole = run()
    with monkeypatch.context() as patch:
        patch.setattr(joblib, "cpu_count", lambda: 2)
        assert_equal(run(), whole)

    save = checkpoint.save

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        if arguments[-1] == grpo.CHECKPOINT and arguments[3]["step"] == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    monkeypatch.setattr(train, "update_gradients", None)  # nothing is trained again
    assert_equal(run(), whole)


def test_stage_writes_curves_and_errors(workspace):
    content = json.loads(load_params().model_dump_json())
    content["grpo"] |= CHANGES
    Path("params.yaml").write_text(json.dumps(content))
    train.main()
    curves = pd.read_csv("metrics/grpo.csv")
    assert curves["step"].tolist() == [0, 0, 10, 10, 12, 12]
    assert curves["operation"].tolist() == ["+", "-"] * 3
    assert curves[list(grpo.GREEDY)].notna().all(axis=None)
    assert curves.loc[2:, [*grpo.ROLLOUT, "gradient_norm"]].gt(-1e-6).all(axis=None)
    assert curves.loc[2:, "pass_at_group"].ge(curves.loc[2:, "reward"]).all()
    report = json.loads(Path("reports/training.json").read_bytes())["grpo"]
    assert report["equations"] == 200
    assert 0 < report["errors_before"] <= 200
    assert not list(checkpoint.CHECKPOINT.parent.glob("*.pt"))


def test_diverged_gradient_stops(job, model, monkeypatch):
    monkeypatch.setattr(grpo, "estimate_kl", lambda log_p, _: log_p * math.nan)
    with pytest.raises(UserError, match="the gradient's norm is nan") as error:
        grpo.update_gradients(model, model, job, job.train, 0, Workers())
    assert "grpo.learning_rate_factor" in error.value.hint
