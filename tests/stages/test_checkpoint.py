"""A checkpoint is used under its own key only, and by one training at a time."""

import pytest
import torch

from arithmetic.errors import UserError
from stages import checkpoint


@pytest.fixture(autouse=True)
def _saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.CHECKPOINT.parent.mkdir()
    checkpoint.save("key", {"step": 7, "weights": {"head": torch.ones(1000)}})


def test_state_is_loaded_under_its_key_only_and_a_missing_one_is_none():
    state = checkpoint.load("key")
    assert state is not None
    assert state["step"] == 7
    assert torch.equal(state["weights"]["head"], torch.ones(1000))
    assert checkpoint.load("other") is None
    checkpoint.CHECKPOINT.unlink()
    assert checkpoint.load("key") is None


def test_damaged_checkpoint_is_reported_and_ignored(capsys):
    content = checkpoint.CHECKPOINT.read_bytes()
    bit = bytearray(content)
    bit[len(content) // 2] ^= 1
    for damaged in (b"", content[:-500], b"hello", bit):
        checkpoint.CHECKPOINT.write_bytes(damaged)
        assert checkpoint.load("key") is None
        assert "ignoring .checkpoints/train.pt" in capsys.readouterr().out


def test_checkpoint_is_removed_after_success_and_kept_after_failure():
    with pytest.raises(ValueError, match="a bug"), checkpoint.exclusive():
        raise ValueError("a bug")
    assert checkpoint.load("key") is not None
    with checkpoint.exclusive():
        pass
    assert checkpoint.load("key") is None


def test_second_training_stops(monkeypatch):
    monkeypatch.setattr(checkpoint, "LOCK_SECONDS", 0.1)
    with (
        checkpoint.exclusive(),
        pytest.raises(UserError, match="another training is running"),
        checkpoint.exclusive(),
    ):
        pass
