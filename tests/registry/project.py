"""Fabricate a small finished project: what `dvc repro` leaves, written in milliseconds.

python tests/registry/project.py DIRECTORY        registers it, for the tests that kill it
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from arithmetic import artifacts, formats
from arithmetic.artifacts import ArtifactConfig, GrammarConfig, ModelConfig
from arithmetic.grammar import Grammar
from arithmetic.inference import GENERATED, PROMPTS
from arithmetic.input_profile import profile, write_profile
from arithmetic.tokenizer import VOCABULARY_SIZE
from registry.dvc_lock import md5

GRAMMAR = Grammar(("+", "-"), 9)
PARAMS: dict[str, Any] = {
    "generate": {"seed": 1, "operations": ["+", "-"], "max_operand": 9},
    "model": {"d_model": 4, "attention": "dot_product"},
    "train": {"seed": 1, "adamw_learning_rate": 0.00001},
    "evaluate": {"seed": 1},
    "promote": {"max_errors": 0, "min_margin": 0.5},
}
OUTS = {
    "generate": ["data/train.csv", "data/test.csv", "metrics/data_summary.csv"],
    "train": [
        "model/config.json",
        "model/model.safetensors",
        "model/input_profile.json",
        "metrics/history.csv",
        "reports/training.json",
    ],
    "export": ["model/decoders"],
    "evaluate": ["metrics/evaluation.json", "reports/evaluation.json"],
}
USED = {"generate": ["generate"], "train": ["model", "train.seed"], "evaluate": ["evaluate"]}


def make_project(root: Path, seed: int = 1, **report: Any) -> Path:
    """Write a project whose model is determined by `seed` and whose evaluation by `report`."""
    write_model(root / "model", seed)
    write_csv(root / "data/train.csv", ["equation", "answer"], [["1+1=", "2"], ["7-9=", "-2"]])
    write_csv(root / "data/test.csv", ["equation", "answer"], [["3+4=", "7"]])
    write_csv(root / "metrics/data_summary.csv", ["split", "equations"], [["train", 2]])
    history: list[list[Any]] = [[0, 0.01, 2.5, "", ""], [100, 0.001, 0.5, 0.4, 1.0]]
    columns = ["step", "learning_rate", "train_loss", "validation_loss", "validation_exact_match"]
    write_csv(root / "metrics/history.csv", columns, history)
    training = {"parameters": 123, "steps": 100, "stopped_early": False, "best_step": 100}
    write_json(root / "reports/training.json", training)
    params = {**PARAMS, "train": {**PARAMS["train"], "seed": seed}}
    with (root / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    write_evaluation(root, **report)
    return root


def write_evaluation(root: Path, **changes: Any) -> None:
    """Write the evaluation's files, and the dvc.lock of the project as it is now."""
    counts = {"errors": 0, "equations": 200, "exact_match": 1.0, "minimum_margin": 4.5}
    report = {
        "model_digest": artifacts.digest(root / "model"),
        "domain": {"operations": list(GRAMMAR.operations), "max_operand": GRAMMAR.max_operand},
        "complete": True,
        **counts,
        "hallucinations": 0,
        "infinite_generation": 0,
        "out_of_range": 0,
        "by_operation": {"+": counts, "-": counts},
        "decoding_differs_from_pass": 0,
        "graph_differs_from_decoding": 0,
        "never_trained_on": {"errors": 0, "equations": 190, "exact_match": 1.0},
        "test": {"errors": 0, "equations": 1, "exact_match": 1.0},
        "first_failures": [],
    } | changes
    write_json(root / "reports/evaluation.json", report)
    write_json(root / "metrics/evaluation.json", {key: report[key] for key in counts})
    write_lock(root)


def write_lock(root: Path) -> None:
    """Write dvc.lock as DVC does, with the MD5s of the files that are there."""
    params = YAML(typ="safe").load(root / "params.yaml")
    stages: dict[str, Any] = {"register": {"cmd": "python -m stages.register", "deps": []}}
    for name, paths in OUTS.items():
        used = {key: _lookup(params, key) for key in USED.get(name, [])}
        stages[name] = {
            "cmd": f"python -m stages.{name}",
            "deps": [_entry(root, "hard_cases.csv")] if (root / "hard_cases.csv").exists() else [],
            "params": {"params.yaml": used},
            "outs": [_entry(root, path) for path in paths],
        }
    with (root / "dvc.lock").open("w") as file:
        YAML().dump({"schema": "2.0", "stages": stages}, file)


def write_model(directory: Path, seed: int) -> None:
    """Write a model directory that answers exactly: its decoder looks the sequence up."""
    (directory / artifacts.DECODERS).mkdir(parents=True, exist_ok=True)
    lengths = formats.get_format("+").lengths(GRAMMAR.digits)
    shape = ModelConfig(
        vocabulary_size=VOCABULARY_SIZE,
        sequence_lengths=[lengths.prompt + lengths.generated - 1],
        d_model=4,
        layers=1,
        heads=1,
        mlp_ratio=1,
        attention="dot_product",
    )
    grammar = GrammarConfig(operations=list(GRAMMAR.operations), max_operand=GRAMMAR.max_operand)
    config = ArtifactConfig(grammar=grammar, model=shape)
    artifacts.write_config(directory / artifacts.CONFIG, config)
    weights = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    save_file({"head": weights}, directory / artifacts.WEIGHTS)
    write_profile(directory, profile({}, GRAMMAR))
    decoder = directory / artifacts.decoder_path("add_subtract")
    decoder.write_bytes(_lookup_decoder(lengths.prompt, lengths.generated).SerializeToString())


def _lookup_decoder(prompt: int, generated: int) -> onnx.ModelProto:
    # The ids of `a op b` are digits of a number, which is the row of the table.
    table = np.zeros((VOCABULARY_SIZE**3, generated), np.int64)
    for operation in GRAMMAR.operations:
        rows = formats.encode_sequences(operation, *GRAMMAR.equations(operation), GRAMMAR.digits)
        index = rows[:, :3].astype(np.int64) @ VOCABULARY_SIZE ** np.arange(3)
        table[index] = rows[:, prompt:]
    place = np.array([*VOCABULARY_SIZE ** np.arange(3), 0], np.int64)[:, None]
    nodes = [
        helper.make_node("MatMul", [PROMPTS, "place"], ["index"]),
        helper.make_node("Squeeze", ["index", "axis"], ["row"]),
        helper.make_node("Gather", ["table", "row"], [GENERATED]),
    ]
    constants = {"place": place, "axis": np.array([1]), "table": table}
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(PROMPTS, TensorProto.INT64, ["batch", prompt])],
        [helper.make_tensor_value_info(GENERATED, TensorProto.INT64, ["batch", generated])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as the stages do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def _entry(root: Path, path: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": md5(root / path)}


def _lookup(params: dict[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value[part]
    return value
