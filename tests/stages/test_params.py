"""params.yaml is refused as a whole, in one sentence that names the key and the mend."""

import copy
from pathlib import Path

import pytest
import yaml

from arithmetic.errors import InvalidParams
from stages.params import Params, load, validate

ROOT = Path(__file__).resolve().parents[1]
GOOD = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def changed(section: str, key: str, value: object) -> dict[str, dict[str, object]]:
    content = copy.deepcopy(GOOD)
    content[section][key] = value
    return content


def test_the_committed_params_are_valid():
    assert isinstance(load(ROOT / "params.yaml"), Params)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("train", "sede", 1, "unknown key train.sede; did you mean seed?"),
        ("train", "colour", 1, "unknown key train.colour; known keys are seed, batch_sizes"),
        ("train", "seed", "one", "train.seed is 'one', but input should be a valid integer"),
        ("train", "seed", True, "train.seed is True"),
        ("train", "seed", 1.5, "train.seed is 1.5"),
        ("train", "batch_sizes", [0, 1], "train.batch_sizes.0 is 0, but input should be greater"),
        ("train", "batch_sizes", [128], "has 1 sizes for 2 operations; give one for each"),
        ("train", "batch_sizes", [128, 60000], "more than the 50000 training equations"),
        ("train", "batch_sizes", [1, 128], "fewer than train.shards (2); raise it or use fewer"),
        ("model", "attention", "none", "model.attention is 'none', but input should be 'content'"),
        ("generate", "operations", ["+", "^"], "'^'; choose from + - * /"),
        ("generate", "operations", [], "at least one"),
        ("generate", "operations", ["+", "+"], "each operation once"),
        ("generate", "cascade_share", 0.9, "add up to more than 1; lower one of them"),
        ("generate", "max_operand", 0, "generate.max_operand is 0"),
        ("model", "heads", 3, "not a multiple of model.heads (3); change one of them"),
        ("train", "muon_learning_rate", float("nan"), "train.muon_learning_rate is nan"),
        ("promote", "max_errors", -1, "promote.max_errors is -1"),
    ],
)
def test_one_wrong_value_is_named(section, key, value, says):
    with pytest.raises(InvalidParams) as refusal:
        validate(changed(section, key, value))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_key_and_an_unknown_section_are_named():
    missing = copy.deepcopy(GOOD)
    del missing["train"]["seed"]
    with pytest.raises(InvalidParams, match=r"key train\.seed is missing; add it"):
        validate(missing)
    with pytest.raises(InvalidParams, match="unknown key trian; did you mean train"):
        validate({**GOOD, "trian": {}})


def test_a_misspelt_key_is_named_and_not_the_one_it_leaves_missing():
    content = copy.deepcopy(GOOD)
    content["train"]["sede"] = content["train"].pop("seed")
    with pytest.raises(InvalidParams, match=r"unknown key train\.sede; did you mean seed\?"):
        validate(content)


def test_no_steps_is_no_training():
    content = copy.deepcopy(GOOD)
    content["train"] |= {"warmup_steps": 0, "flat_steps": 0, "decay_steps": 0}
    with pytest.raises(InvalidParams, match="add up to 0"):
        validate(content)


@pytest.mark.parametrize("text", ["", "- a list", "just words", "a: [", "\t"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InvalidParams, match=r"params\.yaml"):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidParams, match="cannot be read"):
        load(tmp_path / "params.yaml")


def test_every_key_of_params_yaml_is_documented():
    """The docstring of a section names each of its keys."""
    for section, field in Params.model_fields.items():
        documentation = field.annotation.__doc__ or ""
        for key in GOOD[section]:
            assert key in documentation, f"{section}.{key} is not described"
