"""Export a decoder graph for each sequence format: `python -m stages.export`.

Reads   params.yaml (`export`), model/config.json, model/model.safetensors
Writes  model/decoders/: graphs with prompt ids [B, P] in and generated ids [B, T] out, greedy
        decoding unrolled inside, so that serving needs one call and no torch

The graph is built from the weights with ONNX's own operators. Three things keep it small and fast:
the first block's input and projections depend on token and position alone, so they are looked up in
a table; a query is laid out as one row a head, zero outside its head, so that one matrix product
serves all heads; the output matrix is laid out the same way and picks each head's channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from arithmetic import artifacts
from arithmetic.errors import cli_errors
from arithmetic.formats import Lengths, get_formats
from arithmetic.inference import GENERATED, PROMPTS
from arithmetic.model import (
    Block,
    DotProductAttention,
    PositionalAttention,
    Transformer,
    load_model,
    rms_norm,
)
from stages import MODEL
from stages.params import load_params
from stages.workers import set_deterministic

IR_VERSION = 10  # the file format of onnx 1.16; nothing newer is used


class GraphBuilder:
    """Collect nodes and constants, equal constants once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[object, ...], onnx.TensorProto] = {}

    def constant(self, value: Tensor | Sequence[int]) -> str:
        """Return the name of a constant: a tensor as float32, integers as int64."""
        array = value.numpy() if isinstance(value, Tensor) else np.array(value, np.int64)
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self.constants:
            name = f"c{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return self.constants[key].name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node with `count` outputs and return their names."""
        outputs = [f"n{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def reshape(self, x: str, *shape: int) -> str:
        """Append a Reshape."""
        return self.add("Reshape", x, self.constant(shape))

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """Append a Split of the last axis."""
        return self.add_many("Split", len(sizes), x, self.constant(sizes), axis=-1)


class DecoderBuilder:
    """Build one format's decoder; activations are [B * T, channels], caches [B, S, d].

    Attributes:
        cached: tokens read so far.
        caches: for each block the names of its caches: keys and values, or values alone.
    """

    def __init__(self, model: Transformer, fmt: int):
        self.model, self.fmt, self.graph = model, fmt, GraphBuilder()
        self.blocks = [block for block in model.blocks if isinstance(block, Block)]
        self.cached = 0
        self.caches: list[list[str]] = [[] for _ in model.blocks]
        self.ones = self.graph.constant(torch.ones(model.config.d_model))

    def build(self, lengths: Lengths, opset: int) -> onnx.ModelProto:
        """Return the ONNX model."""
        token = self.read(PROMPTS, lengths.prompt)
        generated = [token]
        for _ in range(lengths.generated - 1):
            token = self.read(token, 1)
            generated.append(token)
        columns = [self.graph.reshape(token, -1, 1) for token in generated]
        self.graph.nodes.append(helper.make_node("Concat", columns, [GENERATED], axis=1))
        prompts, ids = (
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length])
            for name, length in ((PROMPTS, lengths.prompt), (GENERATED, lengths.generated))
        )
        constants = list(self.graph.constants.values())
        graph = helper.make_graph(self.graph.nodes, "decoder", [prompts], [ids], constants)
        opsets = [helper.make_opsetid("", opset)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(proto)
        return proto

    def read(self, ids: str, length: int) -> str:
        """Read the next `length` tokens of each sequence; return the ids that follow, [B]."""
        graph, blocks = self.graph, self.blocks
        vocabulary, width = self.model.tokens.shape
        positions = self.model.positions[self.fmt][self.cached : self.cached + length]
        embedded = self.model.tokens + positions[:, None]  # [T, vocabulary, d]
        first = project(blocks[0], rms_norm(embedded))
        table = torch.cat([embedded, *first], -1).flatten(0, 1)
        if length > 1:
            offsets = [vocabulary * position for position in range(length)]
            ids = graph.reshape(graph.add("Add", ids, graph.constant(offsets)), -1)
        rows = graph.add("Gather", graph.constant(table), ids)
        x, *projections = graph.split(rows, [width, *(part.shape[-1] for part in first)])
        for index, block in enumerate(blocks):
            if index:
                parts = project(block, torch.eye(width))
                product = graph.add("MatMul", self.norm(x), graph.constant(torch.cat(parts, -1)))
                projections = graph.split(product, [part.shape[-1] for part in parts])
            # Only the last token's output is needed after the last block.
            skip = length - 1 if block is blocks[-1] else 0
            x = self.block(index, x, projections, length, skip)
        self.cached += length
        logits = graph.add("MatMul", self.norm(x), graph.constant(self.model.head.T))
        return graph.add("ArgMax", logits, axis=-1, keepdims=0)

    def block(self, index: int, x: str, projections: list[str], length: int, skip: int) -> str:
        """Append one block: [B * T, d] to [B * (T - skip), d], the outputs from `skip` on."""
        graph, block = self.graph, self.blocks[index]
        attend = (
            attend_by_dot_product
            if isinstance(block.attention, DotProductAttention)
            else attend_by_position
        )
        mixed, output = attend(self, index, projections, length, skip)
        x = self.drop(x, length, skip, self.model.config.d_model)
        x = graph.add("Gemm", mixed, graph.constant(output), x)
        up, down = (graph.constant(layer.weight.T) for layer in (block.up, block.down))
        hidden = graph.add("Gemm", self.norm(x), up, graph.constant(block.up.bias))
        return graph.add("Gemm", graph.add("Relu", hidden), down, x)

    def norm(self, x: str) -> str:
        """Append an RMSNorm."""
        return self.graph.add("RMSNormalization", x, self.ones, axis=-1, epsilon=1e-6)

    def drop(self, x: str, length: int, skip: int, channels: int) -> str:
        """Drop each sequence's first `skip` rows of [B * T, channels]."""
        if not skip:
            return x
        bounds = (self.graph.constant(value) for value in ([skip], [length], [1]))
        rows = self.graph.add("Slice", self.graph.reshape(x, -1, length, channels), *bounds)
        return self.graph.reshape(rows, -1, channels)

    def extend(self, index: int, parts: list[str], length: int) -> list[str]:
        """Append the new tokens' keys and values to a block's caches; return all, [B, S, d]."""
        new = [self.graph.reshape(part, -1, length, self.model.config.d_model) for part in parts]
        if old := self.caches[index]:
            pairs = zip(old, new, strict=True)
            new = [self.graph.add("Concat", *pair, axis=1) for pair in pairs]
        self.caches[index] = new
        return new


def head_mask(attention: DotProductAttention, width: int) -> Tensor:
    """Return the channels of each head as 0 and 1: [heads, d]."""
    return torch.eye(attention.heads).repeat_interleave(width // attention.heads, 1)


def project(block: Block, x: Tensor) -> list[Tensor]:
    """Project x [..., d] to queries, keys and values; for positional attention to values alone.

    The queries have a row of d channels for each head, zero outside the head: [..., heads * d].
    """
    attention = block.attention
    if isinstance(attention, PositionalAttention):
        return [F.linear(x, attention.matrices[0])]
    query, key, value = (F.linear(x, matrix) for matrix in attention.matrices[:3])
    width = x.shape[-1]
    mask = head_mask(attention, width) / math.sqrt(width // attention.heads)
    return [(query[..., None, :] * mask).flatten(-2), key, value]


def attend_by_dot_product(
    decoder: DecoderBuilder, index: int, projections: list[str], length: int, skip: int
) -> tuple[str, Tensor]:
    """Append dot-product attention; return [B * (T - skip), heads * d] and the output matrix."""
    graph, attention = decoder.graph, decoder.blocks[index].attention
    assert isinstance(attention, DotProductAttention)
    width, heads, rows = decoder.model.config.d_model, attention.heads, length - skip
    query, *parts = projections
    keys, values = decoder.extend(index, parts, length)
    query = decoder.drop(query, length, skip, heads * width)
    query = graph.reshape(query, -1, rows * heads, width)
    scores = graph.add("MatMul", query, graph.add("Transpose", keys, perm=[0, 2, 1]))
    seen = decoder.cached + length
    bias = attention.bias(decoder.fmt, seen - rows, seen).transpose(0, 1)
    scores = graph.add("Add", scores, graph.constant(bias.flatten(0, 1)))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), values)
    output = head_mask(attention, width)[..., None] * attention.matrices[3].T
    return graph.reshape(mixed, -1, heads * width), output.flatten(0, 1)


def attend_by_position(
    decoder: DecoderBuilder, index: int, projections: list[str], length: int, skip: int
) -> tuple[str, Tensor]:
    """Append positional attention; return [B * (T - skip), d] and the output matrix."""
    graph, attention = decoder.graph, decoder.blocks[index].attention
    assert isinstance(attention, PositionalAttention)
    width, seen = decoder.model.config.d_model, decoder.cached + length
    (values,) = decoder.extend(index, projections, length)
    weights = torch.softmax(attention.bias(decoder.fmt, seen - length + skip, seen), -1)
    by_channel = weights.repeat_interleave(width // attention.heads, 0).permute(1, 2, 0)
    values = graph.add("Unsqueeze", values, graph.constant([1]))  # [B, 1, S, d] * [T, S, d]
    product = graph.add("Mul", values, graph.constant(by_channel))
    mixed = graph.add("ReduceSum", product, graph.constant([2]), keepdims=0)
    return graph.reshape(mixed, -1, width), attention.matrices[1].T


@torch.no_grad()
def export_decoders(opset: int) -> dict[str, bytes]:
    """Return each format's decoder by its path, the same bytes for the same weights.

    Raises:
        InvalidModelError: config or weights are missing or damaged.
    """
    grammar, model = artifacts.load_config(MODEL).get_grammar(), load_model(MODEL)
    decoders = {}
    for index, fmt in enumerate(get_formats(grammar.operations)):
        proto = DecoderBuilder(model, index).build(fmt.lengths(grammar.digits), opset)
        path = artifacts.decoder_path(fmt.name)
        decoders[path] = proto.SerializeToString(deterministic=True)
    return decoders


def main() -> None:
    """Run the stage."""
    with cli_errors():
        set_deterministic()
        decoders = export_decoders(load_params().export.opset)
        (MODEL / artifacts.DECODERS).mkdir(exist_ok=True)
        for name, content in decoders.items():
            (MODEL / name).write_bytes(content)
            print(f"{MODEL / name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
