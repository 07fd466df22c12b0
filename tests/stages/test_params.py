"""params.yaml is validated as a whole: one error with the key, its value and the fix."""

import copy

import pytest

from arithmetic.errors import InvalidParamsError
from registry.dvc_lock import read_yaml
from stages.params import load_params, validate_params
from tests.small_project import ROOT

COMMITTED = ROOT / "params.yaml"
VALID = read_yaml(COMMITTED)


def change(section: str, **values: object) -> dict[str, dict[str, object]]:
    content = copy.deepcopy(VALID)
    content[section] |= values
    return content


def test_committed_params_are_valid():
    assert load_params(COMMITTED) == validate_params(VALID)


@pytest.mark.parametrize(
    ("section", "key", "value", "message", "hint"),
    [
        ("train", "sede", 1, "unknown key train.sede", "did you mean seed?"),
        ("train", "color", 1, "unknown key train.color", "known keys are seed, batch_sizes, "),
        ("train", "seed", "one", "train.seed is 'one'", "should be a valid integer"),
        ("train", "seed", True, "train.seed is True", "should be a valid integer"),
        ("train", "seed", 1.5, "train.seed is 1.5", "should be a valid integer"),
        ("train", "seed", -1, "train.seed is -1", "greater than or equal to 0"),
        ("train", "batch_sizes", [1], "train.batch_sizes.0 is 1", "greater than or equal to 2"),
        ("train", "batch_sizes", [64, 64], "2 sizes for the sequence formats add_subtract", "each"),
        ("train", "decay_steps", 0, "train.decay_steps is 0", "greater than or equal to 1"),
        ("train", "muon_learning_rate", float("nan"), "train.muon_learning_rate is nan", "less"),
        ("train", "muon_momentum", 1.0, "train.muon_momentum is 1.0", "less than 1"),
        ("model", "attention", "none", "model.attention is 'none'", "'dot_product'"),
        ("model", "heads", 3, "is not a multiple of model.heads (3)", "change one of them"),
        ("generate", "operations", ["+", "^"], "operations is ['+', '^']", "one of + - * /"),
        ("generate", "operations", [], "generate.operations is []", "at least one"),
        ("generate", "operations", ["+", "+"], "is ['+', '+']", "each once"),
        ("generate", "cascade_share", 0.9, "add up to more than 1", "lower one of them"),
        ("generate", "max_operand", 0, "generate.max_operand is 0", "greater than or equal to 1"),
        ("generate", "test_size", 1, "generate.test_size is 1", "greater than or equal to 4"),
        ("grpo", "questions", 30, "grpo.questions is 30", "give a multiple of 4"),
        ("grpo", "group_size", 1, "grpo.group_size is 1", "greater than or equal to 2"),
        ("grpo", "kl_weight", -0.1, "grpo.kl_weight is -0.1", "greater than or equal to 0"),
        ("grpo", "kl_wait", 0.1, "unknown key grpo.kl_wait", "did you mean kl_weight?"),
        ("export", "opset", 17, "export.opset is 17", "greater than or equal to 23"),
        ("evaluate", "beam_width", 9, "evaluate.beam_width is 9", "less than or equal to 8"),
        ("promote", "max_errors", -1, "promote.max_errors is -1", "greater than or equal to 0"),
    ],
)
def test_wrong_value_is_named_with_its_fix(section, key, value, message, hint):
    with pytest.raises(InvalidParamsError) as error:
        validate_params(change(section, **{key: value}))
    assert message in error.value.message
    assert hint in error.value.message + error.value.hint
    assert error.value.message.startswith("params.yaml: ")
    assert error.value.hint
    assert "\n" not in error.value.message + error.value.hint


def test_missing_key_and_unknown_section_are_named():
    missing = change("train")
    del missing["train"]["seed"]
    with pytest.raises(InvalidParamsError, match=r"key train\.seed is missing"):
        validate_params(missing)
    missing["train"]["sede"] = 1  # named before the key that it leaves missing
    with pytest.raises(InvalidParamsError, match=r"unknown key train\.sede"):
        validate_params(missing)
    with pytest.raises(InvalidParamsError, match="unknown key trian") as error:
        validate_params({**VALID, "trian": {}})
    assert error.value.hint == "did you mean train?"


@pytest.mark.parametrize(
    ("section", "key", "written", "value"),
    [("train", "adamw_learning_rate", "1e-05", 1e-05), ("evaluate", "seed", "010", 10)],
)
def test_numbers_are_read_as_dvc_writes_them(tmp_path, section, key, written, value):
    """YAML 1.2: `dvc exp run -S train.adamw_learning_rate=0.00001` writes 1e-05."""
    path = tmp_path / "params.yaml"
    before, _, after = COMMITTED.read_text().partition(f"{section}:\n")
    after = after.replace(f"{key}: {VALID[section][key]}", f"{key}: {written}", 1)
    path.write_text(f"{before}{section}:\n{after}")
    assert getattr(getattr(load_params(path), section), key) == value


def test_section_given_twice_is_rejected_with_its_lines(tmp_path):
    path = tmp_path / "params.yaml"
    lines = [*COMMITTED.read_text().splitlines(), "promote: {max_errors: 90, min_margin: 0}"]
    path.write_text("\n".join(lines))
    places = f"promote in lines {lines.index('promote:') + 1}, {len(lines)}"
    with pytest.raises(InvalidParamsError, match=places):
        load_params(path)


@pytest.mark.parametrize("content", [b"", b"- a list", b"just words", b"a: [", b"\t", b"\xff"])
def test_file_that_is_no_mapping_is_rejected(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidParamsError, match=r"params\.yaml"):
        load_params(path)
