"""A checkpoint is used under its own key only, and by one training at a time."""

import pytest
import torch

from arithmetic.errors import UserError
from stages import checkpoint
from stages.optimizer import ScheduledOptimizers
from stages.params import load_params
from tests.random_models import random_model
from tests.small_project import ROOT

TRAIN = load_params(ROOT / "params.yaml").train


def make_state():
    model = random_model("+", 1, "dot_product")
    return model, ScheduledOptimizers(model, TRAIN, lambda step: 1 / (step + 1))


@pytest.fixture(autouse=True)
def saved(tmp_path, monkeypatch):
    """Return what was saved: a model after one step."""
    monkeypatch.chdir(tmp_path)
    checkpoint.CHECKPOINT.parent.mkdir()
    model, optimizers = make_state()
    model(torch.zeros(1, 3, dtype=torch.int64), 0).sum().backward()
    optimizers.step()
    checkpoint.save("key", model, optimizers, {"step": 7})
    return model, optimizers


def load(key="key"):
    return checkpoint.load(key, *make_state())


def test_state_is_loaded_under_its_key_only_and_a_missing_one_is_none(saved):
    model, optimizers = make_state()
    assert checkpoint.load("key", model, optimizers) == {"step": 7}
    assert torch.equal(model.head, saved[0].head)
    assert str(optimizers.state_dict()) == str(saved[1].state_dict())
    assert load("other") is None
    checkpoint.CHECKPOINT.unlink()
    assert load() is None


@pytest.mark.parametrize("keep", [0, 100, -100], ids=["empty", "cut", "end missing"])
def test_damaged_checkpoint_is_reported_and_ignored(keep, capsys):
    content = checkpoint.CHECKPOINT.read_bytes()
    checkpoint.CHECKPOINT.write_bytes(content[:keep])
    assert load() is None
    assert "train.pt, which is damaged" in capsys.readouterr().out


def test_checkpoint_is_removed_after_success_and_kept_after_failure():
    with pytest.raises(ValueError, match="a bug"), checkpoint.exclusive():
        raise ValueError("a bug")
    assert load() is not None
    with checkpoint.exclusive():
        pass
    assert load() is None


def test_second_training_stops(monkeypatch):
    monkeypatch.setattr(checkpoint, "LOCK_SECONDS", 0.1)
    with (
        checkpoint.exclusive(),
        pytest.raises(UserError, match="another training is running"),
        checkpoint.exclusive(),
    ):
        pass
