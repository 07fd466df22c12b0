"""Optimiser, schedule and training: the same arguments give the same bytes."""

import stages  # noqa: I001

import itertools
import math
import os
import shutil
import sys

import pytest
import torch
from torch import nn

import stages.train
from arithmetic.errors import InvalidParams, Problem
from stages import checkpoint
from stages.optimiser import Muon, optimisers, orthogonalised
from stages.params import Params, validate
from stages.schedule import Schedule
from stages.torch_setup import single_threaded
from stages.replica import Replica, Validation
from stages.train import Progress, read_sequences, shape_of, train
from benchmarks.small import params as small_params


def test_newton_schulz_makes_all_singular_values_about_one():
    matrices = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_moves_down_the_gradient_whatever_the_shape():
    for shape in [(8, 4), (4, 8), (3, 4, 4)]:
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        Muon([parameter], lr=0.1, momentum=0.9).step()
        assert (parameter.detach() * parameter.grad).sum() < 0


def test_every_parameter_belongs_to_one_optimiser():
    params: Params = validate(small_params())
    from arithmetic.model import Transformer

    model = Transformer(shape_of(params))
    owned = [
        id(parameter)
        for optimiser in optimisers(model, 0.05, 0.95, 0.01)
        for parameter in optimiser.param_groups[0]["params"]
    ]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())


def test_the_schedule_warms_up_stays_and_decays():
    schedule = Schedule(warmup=4, flat=3, decay=5)
    factors = [schedule.factor(step) for step in range(schedule.steps)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:7] == [1.0, 1.0, 1.0]
    assert factors[7] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[7:]))
    assert math.isclose(factors[-1], 0.2)
    assert [schedule.phase(step) for step in (0, 4, 7)] == ["warmup", "flat", "decay"]


@pytest.fixture
def inputs(pipeline):
    """The small pipeline's data in the model's format: training, validation."""
    grammar = validate(small_params()).generate.grammar
    data = pipeline / "data"
    return [read_sequences(data / f"{name}.csv", grammar) for name in ("train", "validation")]


@pytest.fixture
def run(inputs, tmp_path, monkeypatch):
    """Train on the small pipeline's data with some params changed, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def train_with(**changes: object) -> Progress:
        single_threaded()
        params = validate(small_params())
        return train(shape_of(params), params.train.model_copy(update=changes), 4, *inputs)

    return train_with


def replica(inputs, **changes: object) -> Replica:
    params = validate(small_params())
    training = params.train.model_copy(update=changes)
    return Replica(shape_of(params), training, 4, inputs[0])


def test_an_epoch_sees_each_equation_once(inputs):
    """120 equations, 60 an operation, in batches of 16: three whole ones an epoch."""
    one = replica(inputs, shards=2)
    seen = [one._rows(0, step, shard) for step in range(3) for shard in range(2)]
    rows = {tuple(row.tolist()) for part in seen for row in part}
    assert sum(map(len, seen)) == len(rows) == 48


def test_training_is_a_function_of_its_arguments(run, tmp_path):
    torch.manual_seed(1)
    first = run()
    shutil.rmtree(tmp_path / ".checkpoints")
    torch.manual_seed(2)
    second = run()
    assert first.history == second.history
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    other = run(seed=2)
    assert not torch.equal(other.weights["head"], first.weights["head"])


def test_one_core_and_two_give_the_same_bytes(run, tmp_path, monkeypatch):
    """The shards are the same, only who computes them is not."""
    monkeypatch.setattr(stages.train, "cores", lambda: 2)
    two = run(decay_steps=40)
    shutil.rmtree(tmp_path / ".checkpoints")
    monkeypatch.setattr(stages.train, "cores", lambda: 1)
    one = run(decay_steps=40)
    assert one.history == two.history
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_it_learns(run):
    """200 equations are too few to generalise from; what it is shown, it learns."""
    history = run().history
    assert history[-1].train_loss < history[0].train_loss / 5
    assert history[-1].validation_token_accuracy > 0.5


def test_it_stops_early_and_keeps_the_best(run):
    """A rate that breaks the model after a while: the best checkpoint is not the last."""
    trained = run(
        muon_learning_rate=5.0, flat_steps=2000, validate_every=10, early_stopping_patience=3
    )
    assert trained.step < 2000
    best = trained.history[trained.best]
    assert best.validation_loss == min(row.validation_loss for row in trained.history)
    assert trained.best == len(trained.history) - 4


def test_an_interrupted_training_ends_in_the_same_bytes(run, tmp_path, monkeypatch):
    whole = run()
    shutil.rmtree(tmp_path / ".checkpoints")
    save = checkpoint.save

    def save_and_stop(name: str, state: checkpoint.Checkpoint) -> None:
        save(name, state)
        if state.state["step"] == 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(checkpoint, "save", save)
    resumed = run()
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_a_damaged_checkpoint_is_not_taken_for_a_whole_one(run, tmp_path, capfd):
    whole = run()
    (path,) = (tmp_path / ".checkpoints").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    again = run()
    assert "does not read" in capfd.readouterr().out
    assert again.history == whole.history


def test_a_second_trainer_stops_with_a_clear_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "LOCK_SECONDS", 0.1)
    with (
        checkpoint.alone("key"),
        pytest.raises(Problem, match=f"at work .process {os.getpid()}."),
        checkpoint.alone("key"),
    ):
        pass


def test_a_checkpoint_s_key_stands_for_params_data_and_code(monkeypatch):
    data = [torch.zeros(2, 3, dtype=torch.uint8)]
    key = checkpoint.key({"seed": 1}, data)
    assert key == checkpoint.key({"seed": 1}, data)
    assert key != checkpoint.key({"seed": 2}, data)
    assert key != checkpoint.key({"seed": 1}, [data[0] + 1])
    module = sys.modules["stages.train"]
    monkeypatch.delitem(sys.modules, "stages.train")
    assert key != checkpoint.key({"seed": 1}, data)
    # As `python -m stages.train` loads it.
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert key == checkpoint.key({"seed": 1}, data)


def test_a_finished_training_only_hands_out_its_weights(run, monkeypatch):
    """Killed before its outputs were written: no peers are started, nothing is trained."""
    whole = run()

    def none_is_needed(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(stages.train, "_exchange", none_is_needed)
    again = run()
    assert again.history == whole.history
    assert all(torch.equal(again.weights[name], whole.weights[name]) for name in whole.weights)


def test_a_training_that_diverges_says_so(run, monkeypatch):
    """NaN is better than nothing in no comparison, so it would stay the best for ever."""
    monkeypatch.setattr(Replica, "validate", lambda *_: Validation(math.nan, 0.0, 0.0))
    with pytest.raises(Problem, match=r"diverged; lower train\.muon_learning_rate"):
        run()


def test_data_smaller_than_a_batch_is_refused(run):
    with pytest.raises(InvalidParams, match=r"train\.batch_sizes has 5000"):
        run(batch_sizes=[5000, 16])


def test_an_orphan_of_a_killed_dvc_stops(run, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(stages, "_PARENT", 1 << 22)
    with pytest.raises(Problem, match="dvc is gone"):
        run()


def test_no_room_for_a_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(Problem, match=r"cannot be written .* make room"):
        checkpoint.write_tensors({"one": torch.zeros(1)}, tmp_path / "missing" / "x.safetensors")
