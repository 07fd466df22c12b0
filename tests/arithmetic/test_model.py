"""The Transformer is causal, and decoding with the cache is decoding without it."""

import stages  # noqa: F401, I001

import pytest
import torch
from safetensors.torch import save_file

from arithmetic.config import BundleConfig, ModelConfig, load_config, write_config
from arithmetic.decoding import GreedyDecoder
from arithmetic.errors import BrokenBundle
from arithmetic.grammar import Grammar
from arithmetic.model import Transformer
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.weights import load_model

LENGTHS = (12, 10)


def shape(attention: str) -> ModelConfig:
    return ModelConfig(
        VOCABULARY_SIZE, LENGTHS, d_model=16, layers=2, heads=4, mlp_ratio=4, attention=attention
    )


@pytest.fixture(params=["content", "position"])
def model(request) -> Transformer:
    """Random, the zero-initialised head included: its logits must tell positions apart."""
    model = Transformer(shape(request.param)).initialise(torch.Generator().manual_seed(1)).eval()
    torch.nn.init.normal_(model.head, generator=torch.Generator().manual_seed(2))
    return model


def test_no_position_sees_its_future(model):
    ids = torch.randint(0, 10, (3, 12), generator=torch.Generator().manual_seed(2))
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 10
    before, after = model(ids, 0), model(changed, 0)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_asking_for_later_logits_only_changes_none_of_them(model):
    ids = torch.randint(0, 10, (3, 12), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(ids, 0, first_logit=5), model(ids, 0)[:, 5:])


def test_operations_have_positions_of_their_own(model):
    ids = torch.zeros(1, 10, dtype=torch.long)
    assert not torch.equal(model(ids, 0), model(ids, 1))


def test_every_position_sees_its_past(model):
    ids = torch.zeros(1, 12, dtype=torch.long)
    changed = ids.clone()
    changed[0, 0] = 9
    assert not torch.equal(model(ids, 0)[0, 11], model(changed, 0)[0, 11])


def test_cached_decoding_is_the_argmax_of_whole_passes(model):
    """The key-value cache is a shortcut, not another model."""
    prompts = torch.randint(0, 10, (16, 5), generator=torch.Generator().manual_seed(3))
    generated = GreedyDecoder(model, 0, 7)(prompts)
    ids = prompts
    for _ in range(7):
        ids = torch.cat([ids, model(ids, 0)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generated, ids[:, 5:])


def test_initialisation_follows_its_generator_alone():
    torch.manual_seed(123)
    first = Transformer(shape("position")).initialise(torch.Generator().manual_seed(1)).state_dict()
    torch.manual_seed(456)
    second = (
        Transformer(shape("position")).initialise(torch.Generator().manual_seed(1)).state_dict()
    )
    other = Transformer(shape("position")).initialise(torch.Generator().manual_seed(2)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["tokens"], other["tokens"])


def test_weights_and_config_rebuild_the_model(model, tmp_path):
    write_config(tmp_path / "config.json", BundleConfig(Grammar(("+", "-"), 9), model.config))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    ids = torch.zeros(1, 12, dtype=torch.long)
    assert torch.equal(load_model(tmp_path)(ids, 0), model(ids, 0))
    assert load_config(tmp_path).model == model.config


@pytest.mark.parametrize("damage", ["truncated", "missing", "of another shape"])
def test_damaged_weights_are_refused_in_one_sentence(model, tmp_path, damage):
    write_config(tmp_path / "config.json", BundleConfig(Grammar(("+", "-"), 9), model.config))
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    else:
        save_file({"tokens": torch.zeros(2, 2)}, path)
    with pytest.raises(BrokenBundle, match=r"weights\.safetensors does not load"):
        load_model(tmp_path)
