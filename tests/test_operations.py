"""The guard of reproducibility: training uses only operations that `make reproduce-cpus` compared.

Another operation may call a library whose result depends on the CPU (MKL's `sqrt` does), and no
test on one machine would see it.
"""

import json
from dataclasses import replace

import pytest
import torch

from arithmetic import layouts
from arithmetic.errors import Problem
from benchmarks import small
from benchmarks.reproduce_operations import Operations, refuse_unverified, verified
from benchmarks.reproduce_short import ATTENTIONS, FULL, PROJECTS, Outputs, data, trained
from stages import train
from stages.params import load


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("project", PROJECTS)
def test_training_uses_verified_operations_only(project, attention, tmp_path, monkeypatch):
    """Forward, backward, both optimisers, validation, checkpoints; fewer equations, two digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "cores", lambda: 1)  # what a second process does is not seen here
    params = load(PROJECTS[project] / "params.yaml")
    fewer = {"train_size": 800, "validation_size": 80, "test_size": 80, "max_operand": 99}
    params = params.model_copy(update={"generate": params.generate.model_copy(update=fewer)})
    data(params, tmp_path / "data")
    outputs = Outputs()
    size = replace(FULL, graphs=False)
    trained(params, attention, tmp_path / "data", tmp_path / "out", outputs, size)
    assert "aten._fused_adamw_.default float32" in outputs.operations
    assert "aten.mm.default float32" in outputs.operations
    assert any("backward" in name for name in outputs.operations)
    refuse_unverified(outputs.operations, verified())


def test_another_operation_is_named():
    """The very one that facts found to differ, in a backward pass."""
    with Operations() as operations:
        torch.ones(3, requires_grad=True).sqrt().sum().backward()
    with pytest.raises(Problem, match=r"aten\.sqrt\.default float32.*never compared"):
        refuse_unverified(operations.seen, verified())


def test_the_same_operation_in_another_type_is_another_one():
    with Operations() as operations:
        torch.ones(2, 2, dtype=torch.float64) @ torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(Problem, match=r"aten\.mm\.default float64"):
        refuse_unverified(operations.seen, verified())


def test_a_result_that_differs_verifies_nothing(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"equal": False, "operations": ["aten.mm.default float32"]}))
    with pytest.raises(Problem, match="CPUs differ"):
        verified(path)


def test_looking_changes_no_bit(tmp_path, monkeypatch):
    """What the hashes of `make reproduce-cpus` are taken from is the training that users have."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(json.dumps(small.params()))
    params = load(tmp_path / "params.yaml")
    data(params, tmp_path / "data")
    grammar = params.generate.grammar
    arguments = (
        train.shape_of(params),
        params.train.model_copy(update={"flat_steps": 5, "decay_steps": 5}),
        layouts.prompt_length(grammar.digits),
        train.read_sequences(tmp_path / "data" / "train.csv", grammar),
        train.read_sequences(tmp_path / "data" / "validation.csv", grammar),
    )
    monkeypatch.setattr(train, "cores", lambda: 1)
    plain = train.train(*arguments)
    # Nothing to go on from, so the second one starts anew too.
    train.checkpoint.remove(next(iter((tmp_path / ".checkpoints").glob("*.safetensors"))).stem)
    with Operations():
        seen = train.train(*arguments)
    assert plain.history == seen.history
    for name, tensor in plain.weights.items():
        assert torch.equal(tensor, seen.weights[name])
