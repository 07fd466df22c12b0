"""The Transformer is causal, and the key-value cache changes nothing but the time."""

import pytest
import torch
from safetensors.torch import save_file

from arithmetic import artifacts
from arithmetic.errors import InvalidModelError
from arithmetic.model import KVCache, Transformer, load_model
from tests.random_models import random_model

LENGTH = 15


@pytest.fixture(params=["dot_product", "positional"])
def model(request) -> Transformer:
    return random_model("+*", 2, request.param)


def random_ids(rows: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 10, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("position", [0, 7, LENGTH - 1])
def test_positions_see_their_past_and_not_their_future(model, position):
    ids = random_ids(3)
    changed = ids.clone()
    changed[:, position] = (changed[:, position] + 1) % 10
    before, after = model(ids, 0), model(changed, 0)
    assert torch.equal(before[:, :position], after[:, :position])
    differs = (before[:, position:] != after[:, position:]).any(-1)
    assert differs.all()


@pytest.mark.parametrize("cuts", [[1] * LENGTH, [5, 1, 1, 8], [LENGTH]])
def test_cached_passes_equal_one_whole_pass(model, cuts):
    ids, cache = random_ids(3), KVCache()
    parts = [model(part, 0, cache) for part in ids.split(cuts, dim=1)]
    assert cache.length == LENGTH
    whole = model(ids, 0)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(model(ids, 0, first=cuts[0] - 1), whole[:, cuts[0] - 1 :])


def test_selected_rows_of_the_cache_continue_as_their_sequences(model):
    ids, rows = random_ids(3), torch.tensor([2, 0, 0])
    cache = KVCache()
    model(ids[:, :-1], 0, cache)
    cache.select(rows)
    torch.testing.assert_close(model(ids[rows, -1:], 0, cache), model(ids[rows], 0)[:, -1:])


def test_rows_of_a_batch_do_not_mix_and_formats_have_position_tables_of_their_own(model):
    ids = random_ids(5)
    together = model(ids, 0)
    torch.testing.assert_close(together, torch.cat([model(row[None], 0) for row in ids]))
    assert not torch.equal(together, model(ids, 1))


def test_initialization_is_a_function_of_its_generator(model):
    states: list[dict[str, torch.Tensor]] = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(states))
        fresh = Transformer(model.config).initialize(torch.Generator().manual_seed(seed))
        states.append(fresh.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["tokens"], states[2]["tokens"])
    assert not states[0]["head"].any()


def test_weights_and_config_rebuild_the_model(directory):
    model, ids = random_model("+-*/", 2, "dot_product"), random_ids(2)
    loaded = load_model(directory)
    assert torch.equal(loaded(ids, 2), model(ids, 2))
    assert not loaded.training


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: save_file({"tokens": torch.zeros(2, 2)}, path),
    ],
    ids=["truncated", "empty", "missing", "of another shape"],
)
def test_damaged_weights_are_rejected(directory, damage):
    damage(directory / artifacts.WEIGHTS)
    with pytest.raises(InvalidModelError, match=r"model\.safetensors does not load") as error:
        load_model(directory)
    assert "\n" not in error.value.message
