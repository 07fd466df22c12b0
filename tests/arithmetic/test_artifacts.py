"""A model directory is a few files under one digest, and a damaged one is rejected by name."""

import json

import pytest

from arithmetic import artifacts
from arithmetic.artifacts import digest, load_config, model_files
from arithmetic.errors import InvalidModelError

FILES = (
    "config.json",
    "decoders/add_subtract.onnx",
    "decoders/divide.onnx",
    "decoders/multiply.onnx",
    "input_profile.json",
    "model.safetensors",
)
MODEL = {"vocabulary_size": 17, "sequence_lengths": [9], "d_model": 8, "layers": 1, "heads": 2}
MODEL |= {"mlp_ratio": 2, "attention": "positional"}
GRAMMAR = {"operations": ["+", "-"], "max_operand": 9}
CONFIG = {"format": 3, "grammar": GRAMMAR, "model": MODEL}


def test_config_is_read_as_it_was_written(directory):
    config, path = load_config(directory), directory / artifacts.CONFIG
    before = path.read_bytes()
    artifacts.write_config(path, config)
    assert (load_config(directory), path.read_bytes()) == (config, before)
    assert config.get_grammar().operations == ("+", "-", "*", "/")


def test_digest_covers_all_files_and_not_their_place(directory, all_operations):
    paths = sorted(directory.rglob("*.*"))
    present = [path.relative_to(directory).as_posix() for path in paths]
    assert tuple(present) == model_files(load_config(directory)) == FILES
    assert digest(directory) == digest(all_operations)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_changes_the_digest(directory, name):
    before = digest(directory)
    content = bytearray((directory / name).read_bytes())
    # The config's last newline becomes a blank: it has to stay JSON.
    place, bit = (-1, 0b101010) if name == artifacts.CONFIG else (len(content) // 2, 1)
    content[place] ^= bit
    (directory / name).write_bytes(content)
    assert digest(directory) != before


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(InvalidModelError, match=name) as error:
        digest(directory)
    assert "dvc repro" in error.value.hint


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format: Input should be 3"),
        ({"extra": 1}, "extra"),
        ({"grammar": GRAMMAR | {"operations": ["^"]}}, "name at least one of + - * /"),
        ({"grammar": GRAMMAR | {"operations": []}}, "name at least one"),
        ({"grammar": GRAMMAR | {"operations": ["+", "+"]}}, "each once"),
        ({"grammar": GRAMMAR | {"max_operand": 0}}, "grammar.max_operand"),
        ({"grammar": GRAMMAR | {"operations": ["+", "*"]}}, "sequence length"),
        ({"model": {"d_model": 16}}, "model.vocabulary_size"),
        ({"model": MODEL | {"d_model": "wide"}}, "model.d_model"),
        ({"model": MODEL | {"heads": 0}}, "model.heads"),
        ({"model": MODEL | {"heads": 3}}, "not a multiple of model.heads (3)"),
        ({"model": MODEL | {"attention": "none"}}, "model.attention"),
    ],
)
def test_impossible_config_is_rejected(tmp_path, change, reason):
    path = tmp_path / artifacts.CONFIG
    path.write_text(json.dumps(CONFIG))
    assert load_config(tmp_path).model.heads == 2
    path.write_text(json.dumps(CONFIG | change))
    with pytest.raises(InvalidModelError, match=r"config\.json is not a model's config") as error:
        load_config(tmp_path)
    assert reason in error.value.message


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_config_that_is_not_json_is_rejected(tmp_path, content):
    (tmp_path / artifacts.CONFIG).write_bytes(content)
    with pytest.raises(InvalidModelError, match="not a model's config"):
        load_config(tmp_path)
