"""Optimiser, schedule and training: the same arguments give the same bytes."""

import stages  # noqa: F401, I001

import itertools
import math

import pytest
import torch
from torch import nn

from stages.optimiser import Muon, optimisers, orthogonalised
from stages.params import Params, validate
from stages.schedule import Schedule
from stages.torch_setup import single_threaded
from stages.train import Trained, batches, read_sequences, train
from tests.conftest import small_params


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

    model = Transformer(params.model_shape)
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


def test_an_epoch_sees_each_row_once():
    order = batches(10, 3, torch.Generator().manual_seed(1))
    first = torch.cat([next(order) for _ in range(3)])
    assert len(set(first.tolist())) == 9


@pytest.fixture
def run(pipeline):
    """Train on the small pipeline's data with some params changed."""

    def train_with(**changes: object) -> Trained:
        single_threaded()
        params = validate(small_params())
        return train(
            params.model_shape,
            params.train.model_copy(update=changes),
            params.generate.grammar.digits,
            read_sequences(pipeline / "data" / "train.csv", 1),
            read_sequences(pipeline / "data" / "validation.csv", 1),
        )

    return train_with


def test_training_is_a_function_of_its_arguments(run):
    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    second = run()
    assert first.history == second.history
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    other = run(seed=2)
    assert not torch.equal(other.weights["head.weight"], first.weights["head.weight"])


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
    assert trained.stopped_early
    assert trained.best.validation_loss == min(row.validation_loss for row in trained.history)
    assert trained.history.index(trained.best) == len(trained.history) - 4
