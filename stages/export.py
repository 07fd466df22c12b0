"""export: weights to the serving graphs.

Reads   the bundle's config and weights, params.yaml (`export`).
Writes  decoders/: for each operation a graph with prompt ids [B, P] in and generated ids [B, T]
        out, greedy decoding unrolled inside, so that serving needs one call and no torch; and one
        with beam search, whose second input has the beam's width as its length.

The graphs are traced from the very lines that evaluation decodes with, then made small and quick
(`stages.graphs`). torch's TorchScript exporter is used on purpose: it takes less time than the
dynamo exporter and its graph is smaller (docs/decisions.md).
"""

import argparse
import io
import warnings
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.decoding import BeamDecoder, GreedyDecoder
from arithmetic.engine import BEAMS, GENERATED, PROMPTS
from arithmetic.errors import reported
from stages.graphs import cleaned, with_fusable_norms
from stages.params import load
from stages.reads import noted
from stages.timing import timed
from stages.torch_setup import single_threaded
from stages.weights import load_model

# The file format that came with opset 15; newer ones hold nothing that we use.
IR_VERSION = 8


def export(folder: Path, opset: int) -> dict[str, bytes]:
    """Path within the bundle to serving graph, the same bytes for the same weights.

    Raises:
        BrokenBundle: config or weights are missing or damaged.
    """
    grammar = load_config(folder).grammar
    model = load_model(folder)
    prompt = layouts.prompt_length(grammar.digits)
    graphs = {}
    for index, operation in enumerate(grammar.operations):
        tokens = layouts.lengths(operation, grammar.digits).generated
        for decoder in (GreedyDecoder(model, index, tokens), BeamDecoder(model, index, tokens)):
            beam = isinstance(decoder, BeamDecoder)
            graph = traced(decoder.eval(), prompt, opset, beam)
            proto = helper.make_model(
                with_fusable_norms(cleaned(graph, prompt, tokens, beam), model.config.d_model),
                opset_imports=[helper.make_opsetid("", opset)],
                ir_version=IR_VERSION,
                producer_name="",
            )
            onnx.checker.check_model(proto)
            graphs[bundle.decoder(operation, beam)] = proto.SerializeToString(deterministic=True)
    return graphs


def traced(decoder: nn.Module, prompt: int, opset: int, beam: bool) -> onnx.GraphProto:
    """One decoder as torch exports it."""
    # Two rows: a batch of one could be folded into the graph as a constant. So could a beam of one.
    example = [torch.zeros(2, prompt, dtype=torch.int64)]
    if beam:
        example.append(torch.zeros(3, dtype=torch.int64))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecation of this exporter, and Python values that the trace rightly fixes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            decoder,
            tuple(example),
            buffer,  # type: ignore[arg-type]  # this exporter writes to files of any kind
            input_names=[PROMPTS, BEAMS] if beam else [PROMPTS],
            output_names=[GENERATED],
            dynamic_axes={PROMPTS: {0: "batch"}, BEAMS: {0: "width"}, GENERATED: {0: "batch"}},
            opset_version=opset,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue()).graph


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the serving graphs.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--reads", type=Path, help="where to note what was read")
    arguments = parser.parse_args()
    folder: Path = arguments.bundle
    # What was read tells one export from another, and is of the stage's own making.
    with reported(), timed("export", arguments.reads or folder / bundle.WEIGHTS):
        single_threaded()
        params = load(arguments.params)
        with noted("export", params, arguments.reads) as check:
            graphs = export(folder, params.export.opset)
            check()
            (folder / bundle.DECODERS).mkdir(exist_ok=True)
            for name, graph in graphs.items():
                path = folder / name
                path.write_bytes(graph)
                print(f"{path}: {len(graph):,} bytes")


if __name__ == "__main__":
    main()
