"""The serving graph: the same bytes each time, and nothing of this machine in them."""

import stages  # noqa: F401, I001

import collections

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from arithmetic import bundle
from stages.export import export
from stages.graphs import with_fusable_norms


def test_the_same_weights_give_the_same_bytes_as_the_pipeline(tiny_bundle):
    """Another process, another folder, the same bytes."""
    for name, graph in export(tiny_bundle, opset=17).items():
        assert graph == (tiny_bundle / name).read_bytes()


@pytest.mark.parametrize("beam", [False, True])
def test_the_graph_names_no_file_and_no_moment(tiny_bundle, beam):
    content = (tiny_bundle / bundle.decoder("-", beam)).read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content
    assert str(tiny_bundle).encode() not in content
    model = onnx.load_from_string(content)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


@pytest.mark.parametrize("beam", [False, True])
def test_onnxruntime_computes_every_norm_as_one_node(tiny_bundle, tmp_path, beam):
    """Written as torch traces them, they are six nodes each; nothing else would tell."""
    path = tiny_bundle / bundle.decoder("-", beam)
    traced = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimised = collections.Counter(
        node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node
    )
    assert optimised["SimplifiedLayerNormalization"] == traced["Sqrt"] > 0
    assert optimised["Sqrt"] == optimised["ReduceMean"] == 0


def test_the_graph_needs_no_operators_but_onnx_own(tiny_bundle):
    """Any runtime can load it."""
    model = onnx.load(tiny_bundle / bundle.decoder("-"))
    assert {(used.domain, used.version) for used in model.opset_import} == {("", 17)}
    assert {node.domain for node in model.graph.node} == {""}


def test_a_graph_whose_norms_are_not_found_is_refused():
    """Silence would cost a quarter of the service's speed."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "decoder",
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("y", TensorProto.FLOAT, [2, 4])],
    )
    with pytest.raises(ValueError, match="no norm"):
        with_fusable_norms(graph, 4)
