"""Build model directories that answer + and - by a table, without training.

The decoder is a real ONNX graph: it turns the prompt into an index and gathers the whole generated
sequence, which `encode_sequences` wrote. So it is exact, fast, and wrong where a test wants it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from arithmetic import artifacts
from arithmetic.artifacts import ArtifactConfig, GrammarConfig, ModelConfig
from arithmetic.formats import encode_sequences, get_format
from arithmetic.grammar import Grammar
from arithmetic.inference import GENERATED, PROMPTS
from arithmetic.input_profile import profile, write_profile
from arithmetic.tokenizer import IDS, VOCABULARY_SIZE

FORMAT = get_format("+")
GATHER = """table (int64[batch, prompt] {prompts}) => (int64[batch, tokens] {generated}) {{
    products = MatMul({prompts}, weights)
    sums = Squeeze(products, axes)
    indices = Add(sums, offset)
    bytes = Gather(rows, indices)
    {generated} = Cast <to = 7> (bytes)
}}"""
# Makes some of an operation's generated ids [N, T] wrong, given operands [N] and [N].
Corrupt = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def make_model(
    directory: Path, max_operand: int = 99, corrupt: Corrupt | None = None, seed: int = 0
) -> Path:
    """Write a model directory that is exact unless `corrupt` changes its sequences.

    Args:
        seed: changes the weights, which nothing here computes with, and so the digest.
    """
    grammar = Grammar(("+", "-"), max_operand)
    (directory / artifacts.DECODERS).mkdir(parents=True)
    onnx.save(_decoder(grammar, corrupt), directory / artifacts.decoder_path(FORMAT.name))
    lengths = FORMAT.lengths(grammar.digits)
    model = ModelConfig(
        vocabulary_size=VOCABULARY_SIZE,
        sequence_lengths=[lengths.prompt + lengths.generated],
        d_model=4,
        layers=1,
        heads=1,
        mlp_ratio=1,
        attention="dot_product",
    )
    grammar_config = GrammarConfig(operations=["+", "-"], max_operand=max_operand)
    config = ArtifactConfig(grammar=grammar_config, model=model)
    artifacts.write_config(directory / artifacts.CONFIG, config)
    (directory / artifacts.WEIGHTS).write_bytes(json.dumps({"seed": seed}).encode())
    everything = {operation: grammar.equations(operation) for operation in grammar.operations}
    write_profile(directory, profile(everything, grammar))
    return directory


def wrong_where(is_wrong: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Corrupt:
    """Return a corruption of the last digit but one wherever `is_wrong(a, b)` holds."""

    def corrupt(generated: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        rows = is_wrong(a, b)
        generated[rows, -2] = (generated[rows, -2] + 1) % 10

    return corrupt


def _decoder(grammar: Grammar, corrupt: Corrupt | None) -> onnx.ModelProto:
    """Return a graph that gathers row (operator, a, b) of a table of generated ids."""
    size, digits = grammar.max_operand + 1, grammar.digits
    a, b = np.divmod(np.arange(size * size), size)
    tables = [encode_sequences(o, a, b, digits)[:, 2 * digits + 2 :] for o in grammar.operations]
    for table in tables:
        if corrupt is not None:
            corrupt(table, a, b)
    powers = 10 ** np.arange(digits)
    weights = np.concatenate([powers * size, [size * size], powers, [0]])
    constants: dict[str, np.ndarray] = {
        "weights": weights.astype(np.int64)[:, None],
        "offset": np.array([-IDS["+"] * size * size], np.int64),
        "rows": np.concatenate(tables).astype(np.uint8),
        "axes": np.array([1], np.int64),
    }
    graph = onnx.parser.parse_graph(GATHER.format(prompts=PROMPTS, generated=GENERATED))
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
