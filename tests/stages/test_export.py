"""The decoder graphs: greedy decoding of PyTorch, in the same bytes every time."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from arithmetic import artifacts, formats
from arithmetic.decoding import generate
from arithmetic.inference import GENERATED, PROMPTS
from stages import export
from stages.export import DecoderBuilder, export_decoders
from stages.params import load_params
from tests.random_models import OPSET, random_model

DECODER = artifacts.decoder_path("add_subtract")
NORMS = ("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")


@pytest.mark.parametrize("attention", ["dot_product", "positional"])
@pytest.mark.parametrize(
    ("operation", "shape"),
    [
        *((operation, (digits, 2, 4)) for operation in "+*/" for digits in (1, 2)),
        *(("+", (2, layers, heads)) for layers in (1, 3) for heads in (1, 2, 16)),
    ],
)
def test_decoder_equals_greedy_decoding_of_random_weights(attention, operation, shape):
    """Whatever the digits, the layers and the heads."""
    digits, layers, heads = shape
    model = random_model("+*/", digits, attention, layers, heads)
    index = "+*/".index(operation)
    lengths = formats.get_format(operation).lengths(digits)
    with torch.no_grad():
        graph = DecoderBuilder(model, index).build(lengths, OPSET)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for batch in (1, 64):
        a, b = rng.integers(0, 10**digits, (2, batch))
        prompts = formats.encode_prompts(operation, a, b, digits).astype(np.int64)
        expected = generate(model, index, torch.from_numpy(prompts), lengths.generated)
        (generated,) = session.run([GENERATED], {PROMPTS: prompts})
        assert generated.tolist() == expected.tolist()
    assert len(np.unique(generated, axis=0)) > 8


def test_same_weights_give_the_same_bytes(workspace):
    decoders = export_decoders(load_params().export.opset)
    assert list(decoders) == [DECODER]
    for name, content in decoders.items():
        assert content == (workspace / "model" / name).read_bytes()
    export.main()
    assert (workspace / "model" / DECODER).read_bytes() == decoders[DECODER]


def test_decoder_uses_operators_of_onnx_only_and_contains_no_path_or_metadata(trained):
    content = (trained / "model" / DECODER).read_bytes()
    assert b".py" not in content
    assert str(trained).encode() not in content
    model = onnx.load_from_string(content)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert {(used.domain, used.version) for used in model.opset_import} == {("", 23)}
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in model.graph.node}


def test_every_norm_is_one_node_of_onnxruntime(trained, tmp_path):
    """A norm that falls apart into its arithmetic would be slow."""
    path = trained / "model" / DECODER
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimized = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    norms = nodes.count("RMSNormalization")
    assert norms > 0
    assert sum(optimized.count(op) for op in NORMS) == norms
    assert not {"Sqrt", "ReduceMean", "Pow"} & set(optimized)
