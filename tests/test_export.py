"""The serving graph: the same bytes each time, and nothing of this machine in them."""

import stages  # noqa: F401, I001

import onnx
import pytest

from arithmetic import bundle
from stages.export import export


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
