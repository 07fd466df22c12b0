"""Training is a function of params and data: on one core or two, whole or resumed."""

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from arithmetic.artifacts import load_config
from arithmetic.errors import InvalidParamsError, UserError
from arithmetic.input_profile import read_profile
from arithmetic.model import load_model
from stages import checkpoint
from stages.checkpoint import Job
from stages.params import load_params
from stages.train import Progress, choose_batch, encode, get_phase, train
from stages.workers import run_workers

Run = Callable[..., Progress]


@pytest.fixture
def run(make_job: Callable[..., Job]) -> Run:
    """Return a function that trains with changed params, in `workspace`."""
    return lambda **values: run_workers(train, make_job("train", **values))


def assert_equal(first: Progress, second: Progress) -> None:
    assert first.history == second.history
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_schedule_warms_up_stays_and_decays(workspace):
    steps = {"warmup_steps": 4, "flat_steps": 3, "decay_steps": 5}
    params = load_params().train.model_copy(update=steps)
    phases, factors = zip(*(get_phase(params, step) for step in range(13)), strict=True)
    assert phases == ("warmup",) * 4 + ("flat",) * 3 + ("decay",) * 5 + ("end",)
    assert factors[:8] == (0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert all(a > b for a, b in itertools.pairwise(factors[7:]))
    assert factors[-2:] == (0.2, 0.0)


def test_epoch_has_each_equation_at_most_once_and_in_one_shard(make_job):
    """120 equations in batches of 16: seven whole batches an epoch."""
    job = make_job("train")
    (data,) = encode(job, job.train)
    parts = [choose_batch(job, data, 0, step, shard) for step in range(7) for shard in range(2)]
    rows = [tuple(row) for part in parts for row in part.tolist()]
    assert len(rows) == len(set(rows)) == 7 * 16
    assert not torch.equal(
        choose_batch(job, data, 0, 7, 0), parts[0]
    )  # another order in the next epoch


def test_training_is_a_function_of_its_job(run):
    torch.manual_seed(1)
    first = run()
    assert first.history[-1]["train_loss"] < first.history[0]["train_loss"] / 2
    assert first.history[-1]["validation_token_accuracy"] > 0.5
    shutil.rmtree(checkpoint.CHECKPOINT.parent)
    checkpoint.CHECKPOINT.parent.mkdir()
    torch.manual_seed(2)
    assert_equal(run(), first)
    other = run(seed=2)
    assert not torch.equal(other.weights["head"], first.weights["head"])


def test_one_core_and_two_give_the_same_bytes(run, monkeypatch):
    """An odd batch has shards of different sizes."""
    one = run(batch_sizes=[15])
    checkpoint.CHECKPOINT.unlink()
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    assert_equal(run(batch_sizes=[15]), one)


def test_early_stopping_keeps_the_best_weights(run):
    """A rate that breaks the model after a while: the best validation is not the last."""
    changes = {"muon_learning_rate": 5.0, "validate_every": 5, "early_stopping_patience": 3}
    progress = run(flat_steps=2000, **changes)
    assert progress.step < 2000
    losses = [row["validation_loss"] for row in progress.history]
    assert progress.best == losses.index(min(losses)) == len(losses) - 4
    checkpoint.CHECKPOINT.unlink()
    shorter = run(flat_steps=2000, **changes | {"early_stopping_patience": 1})
    assert shorter.best <= progress.best


def test_training_stops_at_an_exact_match(run):
    progress = run(stop_at_exact_match=0.05, validate_every=10)
    reached = [row["validation_exact_match"] >= 0.05 for row in progress.history]
    assert reached[-1]
    assert not any(reached[:-1])
    assert progress.step < 150


def test_interrupted_training_resumes_to_the_same_bytes(run, monkeypatch):
    whole, save = run(), checkpoint.save
    for step in (50, 100):
        checkpoint.CHECKPOINT.unlink()

        def save_and_stop(*arguments, step=step):
            save(*arguments)
            if arguments[3]["step"] == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert_equal(run(), whole)
    # Finished, and killed before its outputs were written: nothing is trained again.
    monkeypatch.setattr("stages.train.update_gradients", None)
    assert_equal(run(), whole)


def test_checkpoint_of_other_params_data_or_code_is_not_used(make_job, monkeypatch, tmp_path):
    job = make_job("train")
    assert job.key == make_job("train").key != make_job("train", seed=2).key
    a, b = job.validation["+"]
    assert job.key != replace(job, validation={**job.validation, "+": (a, b + 1)}).key
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "train.py").write_text("# other code")
    monkeypatch.setattr("stages.checkpoint.__file__", str(tmp_path / "stages" / "checkpoint.py"))
    assert job.key != make_job("train").key


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_diverged_training_stops(run, monkeypatch, loss):
    """NaN compares as false, so a diverged model would stay the best one."""
    original = torch.nn.functional.cross_entropy

    def diverge(*arguments, **options):
        return original(*arguments, **options) * loss

    monkeypatch.setattr("stages.train.F.cross_entropy", diverge)
    with pytest.raises(UserError, match=r"diverged: the validation loss is (nan|inf)") as error:
        run()
    assert "train.muon_learning_rate" in error.value.hint


def test_data_smaller_than_a_batch_is_rejected(run):
    with pytest.raises(InvalidParamsError, match=r"train\.batch_sizes has 121 for add_subtract"):
        run(batch_sizes=[121])


def test_stage_writes_model_history_metric_and_report(trained):
    config = load_config(trained / "model")
    assert config.grammar.max_operand == 9
    model = load_model(trained / "model")
    metrics = json.loads((trained / "metrics" / "training.json").read_bytes())
    report = json.loads((trained / "reports" / "training.json").read_bytes())
    assert metrics == {"parameters": sum(p.numel() for p in model.parameters())}
    history = pd.read_csv(trained / "metrics" / "history.csv")
    assert history["step"].tolist() == [10, 50, 60, 100, 150]
    assert history["phase"].tolist() == ["warmup", "flat", "flat", "decay", "decay"]
    best = history[history["best"] == 1]
    assert best["step"].tolist() == [report["best_step"]]
    assert best["validation_loss"].item() == report["validation_loss"]
    assert np.isclose(history["validation_loss"].min(), report["validation_loss"])
    assert report["steps"] == 150
    assert report["stopped_early"] is False
    counts = read_profile(trained / "model", config.get_grammar())["operation"]
    assert counts == {"+": 60, "-": 60}
    assert not (trained / ".checkpoints" / "train.pt").exists()
