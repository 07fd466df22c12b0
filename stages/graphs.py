"""What torch traced, made small and quick, computing what it computed before."""

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from arithmetic.engine import BEAMS, GENERATED, PROMPTS

# From a norm's last node to its first, as `arithmetic.model.normalised` is traced: each node's
# operation, and which of its inputs leads on.
NORM = (("Mul", 1), ("Div", 1), ("Sqrt", 0), ("Add", 0), ("ReduceMean", 0), ("Mul", 0))
TWO, ONES = "two", "ones"


def cleaned(graph: onnx.GraphProto, prompt: int, tokens: int, beam: bool) -> onnx.GraphProto:
    """A traced graph with what it computes and nothing else.

    Doc strings (they hold source paths) are left out, names are numbered, equal constants are kept
    once and copies of values are skipped.
    """
    names = {"": "", PROMPTS: PROMPTS, BEAMS: BEAMS}
    constants: dict[bytes, onnx.TensorProto] = {}

    def constant(tensor: onnx.TensorProto) -> str:
        array = numpy_helper.to_array(tensor)
        content = repr((array.shape, array.dtype)).encode() + array.tobytes()
        if content not in constants:
            constants[content] = numpy_helper.from_array(array, f"c{len(constants)}")
        return constants[content].name

    for tensor in graph.initializer:
        names[tensor.name] = constant(tensor)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            names[node.output[0]] = constant(node.attribute[0].t)
        elif node.op_type == "Identity":
            names[node.output[0]] = names[node.input[0]]
        else:
            inputs = [names[name] for name in node.input]
            for name in node.output:
                names[name] = GENERATED if name == GENERATED else f"t{len(names)}"
            copy = helper.make_node(node.op_type, inputs, [names[name] for name in node.output])
            copy.attribute.extend(node.attribute)
            nodes.append(copy)
    inputs_info = [helper.make_tensor_value_info(PROMPTS, TensorProto.INT64, ["batch", prompt])]
    if beam:
        inputs_info.append(helper.make_tensor_value_info(BEAMS, TensorProto.INT64, ["width"]))
    return helper.make_graph(
        nodes,
        "decoder",
        inputs_info,
        [helper.make_tensor_value_info(GENERATED, TensorProto.INT64, ["batch", tokens])],
        initializer=list(constants.values()),
    )


def with_fusable_norms(graph: onnx.GraphProto, width: int) -> onnx.GraphProto:
    """The same graph with x · (1 / √(mean(x·x) + ε)) written as x² → mean → + ε → √ → x / √ → · 1.

    In that form onnxruntime knows an RMSNorm and computes it as one node where six were
    (SimplifiedLayerNormFusion); the operators stay ONNX's own, so that every other runtime reads
    the graph too.

    Args:
        width: of what is normalised, `d_model`.

    Raises:
        ValueError: the graph has no norm: `arithmetic.model.normalised` is traced differently.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    norms: dict[str, list[onnx.NodeProto]] = {}  # by the name of the result
    for node in graph.node:
        chain = _norm(node, made_by)
        if chain is not None:
            norms[node.output[0]] = chain
    if not norms:
        raise ValueError("no norm in the traced graph; see arithmetic.model.normalised")
    inner = {node.output[0] for chain in norms.values() for node in chain[1:]}
    nodes = []
    for node in graph.node:
        name = node.output[0]
        if name in norms:
            _, _, root, add, mean, _ = norms[name]
            x, square, quotient = node.input[0], f"{name}_square", f"{name}_quotient"
            nodes.append(helper.make_node("Pow", [x, TWO], [square]))
            for copied, source in ((mean, square), (add, mean.output[0]), (root, add.output[0])):
                fresh = onnx.NodeProto()
                fresh.CopyFrom(copied)
                fresh.input[0] = source
                nodes.append(fresh)
            nodes.append(helper.make_node("Div", [x, root.output[0]], [quotient]))
            nodes.append(helper.make_node("Mul", [quotient, ONES], [name]))
        elif name not in inner:
            nodes.append(node)
    constants = [
        numpy_helper.from_array(np.array(2, np.float32), TWO),
        numpy_helper.from_array(np.ones(width, np.float32), ONES),
    ]
    return helper.make_graph(
        nodes, graph.name, graph.input, graph.output, [*graph.initializer, *constants]
    )


def _norm(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto] | None:
    """The norm that ends in this node, from its last node to its first; None if none does."""
    chain = [node]
    for (operation, leads_on), (before, _) in pairwise(NORM):
        if chain[-1].op_type != operation:
            return None
        earlier = made_by.get(chain[-1].input[leads_on])
        if earlier is None or earlier.op_type != before:
            return None
        chain.append(earlier)
    square = chain[-1]
    return chain if square.input[0] == square.input[1] == node.input[0] else None
