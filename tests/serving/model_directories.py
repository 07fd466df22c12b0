"""Build model directories that answer by a table, without training.

The decoder is a real ONNX graph: it turns the prompt into an index and gathers the whole generated
sequence, which `encode_sequences` wrote. So it is exact, fast, and wrong where a test wants it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from arithmetic import artifacts
from arithmetic.artifacts import ArtifactConfig, GrammarConfig, ModelConfig
from arithmetic.formats import SequenceFormat, encode_sequences, get_formats
from arithmetic.grammar import Equation, Grammar
from arithmetic.inference import GENERATED, PROMPTS
from arithmetic.input_profile import profile, write_profile
from arithmetic.tokenizer import IDS, VOCABULARY_SIZE

# Makes some of an operation's generated ids [N, T] wrong, given operands [N] and [N].
Corrupt = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def make_model(
    directory: Path,
    operations: str = "+-",
    max_operand: int = 99,
    corrupt: Corrupt | None = None,
    fails_on: Equation | None = None,
    seed: int = 0,
) -> Path:
    """Write a model directory that is exact unless `corrupt` changes its sequences.

    Args:
        fails_on: the graph raises on a batch with this equation.
        seed: changes the weights, which nothing here computes with, and so the digest.
    """
    grammar = Grammar(tuple(operations), max_operand)
    (directory / artifacts.DECODERS).mkdir(parents=True)
    formats = get_formats(operations)
    for fmt in formats:
        graph = _decoder(fmt, grammar, corrupt, fails_on)
        onnx.save(graph, directory / artifacts.decoder_path(fmt.name))
    lengths = [sum(fmt.lengths(grammar.digits)[::2]) for fmt in formats]
    shape = {"d_model": 4, "layers": 1, "heads": 1, "mlp_ratio": 1, "attention": "dot_product"}
    model = {"vocabulary_size": VOCABULARY_SIZE, "sequence_lengths": lengths, **shape}
    config = ArtifactConfig(
        grammar=GrammarConfig(operations=list(operations), max_operand=max_operand),
        model=ModelConfig.model_validate(model),
    )
    artifacts.write_config(directory / artifacts.CONFIG, config)
    (directory / artifacts.WEIGHTS).write_bytes(json.dumps({"seed": seed}).encode())
    everything = {operation: grammar.equations(operation) for operation in operations}
    write_profile(directory, profile(everything, grammar))
    return directory


def wrong_where(is_wrong: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Corrupt:
    """Return a corruption of the last digit but one wherever `is_wrong(a, b)` holds."""

    def corrupt(generated: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        rows = is_wrong(a, b)
        generated[rows, -2] = (generated[rows, -2] + 1) % 10

    return corrupt


def _decoder(
    fmt: SequenceFormat, grammar: Grammar, corrupt: Corrupt | None, fails_on: Equation | None
) -> onnx.ModelProto:
    size, digits = grammar.max_operand + 1, grammar.digits
    numbers = np.arange(size, dtype=np.int64)
    a, b = (grid.ravel() for grid in np.meshgrid(numbers, numbers, indexing="ij"))
    tables, rows = [], []
    for number, operation in enumerate(fmt.operations):
        divisor = np.maximum(b, 1) if operation == "/" else b
        sequences = encode_sequences(operation, a, divisor, digits)[:, 2 * digits + 2 :]
        generated = sequences.astype(np.int64)
        if corrupt is not None:
            corrupt(generated, a, b)
        index = np.arange(len(a)) + number * len(a)
        if fails_on is not None and fails_on.operation == operation:
            index[fails_on.operand_1 * size + fails_on.operand_2] = 10**9  # no such row
        tables.append(generated)
        rows.append(index)
    powers = 10 ** np.arange(digits)
    operator = np.zeros(2 * digits + 2)
    operator[digits] = size * size
    weights = operator + np.concatenate([powers * size, [0], powers, [0]])
    constants = {
        "weights": weights.astype(np.int64)[:, None],
        "offset": np.array([-IDS[fmt.operations[0]] * size * size], np.int64),
        "rows": np.concatenate(rows).astype(np.int64),
        "table": np.concatenate(tables).astype(np.uint8),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", [PROMPTS, "weights"], ["products"]),
        helper.make_node("Squeeze", ["products", "axes"], ["sums"]),
        helper.make_node("Add", ["sums", "offset"], ["indices"]),
        helper.make_node("Gather", ["rows", "indices"], ["places"]),
        helper.make_node("Gather", ["table", "places"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], [GENERATED], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        fmt.name,
        [helper.make_tensor_value_info(PROMPTS, TensorProto.INT64, ["batch", 2 * digits + 2])],
        [helper.make_tensor_value_info(GENERATED, TensorProto.INT64, ["batch", None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
