"""Muon orthogonalizes its matrices, and every parameter has one optimizer."""

import pytest
import torch
from torch import nn

from stages.optimizer import Muon, ScheduledOptimizers, orthogonalize
from stages.params import load_params
from tests.random_models import random_model


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_orthogonalized_matrices_have_singular_values_of_about_one():
    values = torch.linalg.svdvals(orthogonalize(random(3, 8, 32)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_weight_decay_shrinks_what_has_no_gradient():
    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 4), 0.95))


def test_matrices_of_one_shape_are_updated_as_alone():
    together = [nn.Parameter(torch.zeros(shape)) for shape in ((4, 8), (8, 4), (2, 4, 8))]
    for seed, parameter in enumerate(together):
        parameter.grad = random(*parameter.shape, seed=seed)
    Muon(together, lr=0.1, momentum=0.9, weight_decay=0.0).step()
    for seed, parameter in enumerate(together):
        alone = nn.Parameter(torch.zeros(parameter.shape))
        alone.grad = random(*parameter.shape, seed=seed)
        Muon([alone], lr=0.1, momentum=0.9, weight_decay=0.0).step()
        torch.testing.assert_close(alone, parameter)


@pytest.mark.parametrize("attention", ["dot_product", "positional"])
def test_every_parameter_has_one_optimizer(attention):
    model = random_model("+*", 2, attention)
    both = ScheduledOptimizers(model, load_params().train, lambda step: 1.0)
    parameters = [p for o in (both.muon, both.adamw) for p in o.param_groups[0]["params"]]
    assert sorted(map(id, parameters)) == sorted(map(id, model.parameters()))
    assert all(p.ndim >= 2 and min(p.shape[-2:]) > 1 for p in both.muon.param_groups[0]["params"])
