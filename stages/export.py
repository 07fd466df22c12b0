"""export: weights to the serving graph.

Reads   the bundle's config and weights, params.yaml (`export`).
Writes  decoder.onnx: prompt ids [B, P] in, generated ids [B, T] out, greedy decoding unrolled
        inside, so that serving needs one call and no torch.

The graph is traced from the very lines that evaluation decodes with. torch's TorchScript exporter
is used on purpose: 0.3 s, and a smaller and faster graph than the dynamo exporter's (6-8 s).
"""

import argparse
import io
import warnings
from pathlib import Path

import onnx
import torch

from arithmetic import layouts
from arithmetic.bundle import DECODER
from arithmetic.config import load_config
from arithmetic.decoding import GreedyDecoder
from arithmetic.errors import reported
from stages.params import load
from stages.timing import timed
from stages.torch_setup import single_threaded
from stages.weights import load_model


def export(bundle: Path, opset: int) -> bytes:
    """The serving graph of a bundle, the same bytes for the same weights; raises BrokenBundle."""
    grammar = load_config(bundle).grammar
    tokens = layouts.max_generated(grammar.operations, grammar.digits)
    decoder = GreedyDecoder(load_model(bundle), tokens).eval()
    # Two rows: a batch of one could be folded into the graph as a constant.
    example = torch.zeros(2, layouts.prompt_length(grammar.digits), dtype=torch.int64)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecation of this exporter, and Python values that the trace rightly fixes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            decoder,
            (example,),
            buffer,  # type: ignore[arg-type]  # this exporter writes to files of any kind
            input_names=["prompts"],
            output_names=["generated"],
            dynamic_axes={"prompts": {0: "batch"}, "generated": {0: "batch"}},
            opset_version=opset,
            dynamo=False,
        )
    return stripped(buffer.getvalue())


def stripped(graph: bytes) -> bytes:
    """The graph without what names a machine or a moment: doc strings (they hold source paths)
    and metadata; serialised deterministically. Numbered names halve the file."""
    model = onnx.load_from_string(graph)
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    short: dict[str, str] = {"": ""}
    for node in model.graph.node:
        node.doc_string = ""
        node.name = ""
        del node.metadata_props[:]
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name not in kept:
                    names[index] = short.setdefault(name, f"t{len(short)}")
    for initializer in model.graph.initializer:
        initializer.name = short[initializer.name]
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the serving graph.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    arguments = parser.parse_args()
    with reported(), timed("export", arguments.bundle / DECODER):
        single_threaded()
        graph = export(arguments.bundle, load(arguments.params).export.opset)
        path = arguments.bundle / DECODER
        path.write_bytes(graph)
        print(f"{path}: {len(graph):,} bytes")


if __name__ == "__main__":
    main()
