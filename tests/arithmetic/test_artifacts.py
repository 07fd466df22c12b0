"""A bundle is a few files under one digest, and a damaged one is refused by name."""

import json
import shutil

import pytest

from arithmetic import bundle
from arithmetic.config import load_config
from arithmetic.engine import Engine
from arithmetic.errors import BrokenBundle
from arithmetic.grammar import Equation

FILES = bundle.files(("+", "-"))


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_changes_the_digest(tiny_bundle, name):
    before = bundle.digest(tiny_bundle)
    content = bytearray((tiny_bundle / name).read_bytes())
    # Of the config the last byte, a newline becomes a blank: a bit inside would make it no JSON.
    place, bit = (-1, 0b101010) if name == bundle.CONFIG else (len(content) // 2, 1)
    content[place] ^= bit
    (tiny_bundle / name).write_bytes(content)
    assert bundle.digest(tiny_bundle) != before


def test_the_digest_is_of_the_contents_not_the_place(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "elsewhere")
    assert bundle.digest(tmp_path / "elsewhere") == bundle.digest(tiny_bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tiny_bundle, name):
    (tiny_bundle / name).unlink()
    with pytest.raises(BrokenBundle, match=name):
        bundle.digest(tiny_bundle)


MODEL: dict[str, object] = {
    "vocabulary": 17,
    "lengths": [9, 9],
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "mlp_ratio": 2,
    "attention": "position",
}


SHAPES_OF_NO_MODEL: list[dict[str, object]] = [
    {"heads": 0},
    {"heads": 3},
    {"d_model": -4},
    {"lengths": []},
    {"attention": "foo"},
]


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 99},
        {"grammar": {"operations": ["^"], "max_operand": 9}},
        {"grammar": {"operations": [], "max_operand": 9}},
        {"grammar": None},
        {"model": {"d_model": 16}},
        {"model": {"d_model": "wide"}},
        {"grammar": {"operations": [["+"]], "max_operand": 9}},
        {"grammar": {"operations": ["+", "+"], "max_operand": 9}},
        *({"model": MODEL | wrong} for wrong in SHAPES_OF_NO_MODEL),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tiny_bundle, damage):
    path = tiny_bundle / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(BrokenBundle, match=r"config\.json"):
        load_config(tiny_bundle)


def test_the_shape_that_the_damaged_ones_differ_from_is_a_possible_one(tiny_bundle):
    """Else the test above would see refusals of something else."""
    path = tiny_bundle / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": MODEL}))
    assert load_config(tiny_bundle).model.heads == 2


def test_a_config_that_is_no_json_is_refused(tiny_bundle):
    (tiny_bundle / "config.json").write_text("{")
    with pytest.raises(BrokenBundle, match="not a bundle's config"):
        load_config(tiny_bundle)


@pytest.mark.parametrize("damage", [b"", b"not a graph", None])
def test_a_damaged_graph_is_refused(tiny_bundle, damage):
    path = tiny_bundle / bundle.decoder("-")
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    with pytest.raises(BrokenBundle, match=r"subtraction\.onnx does not load"):
        Engine(tiny_bundle)


def test_the_engine_answers_mixed_operations_in_order(tiny_bundle):
    engine = Engine(tiny_bundle)
    equations = [Equation(a, operation, b) for a in (1, 9) for operation in "+-" for b in (3, 7)]
    together = engine.answer(equations)
    assert together == [engine.answer([equation])[0] for equation in equations]
