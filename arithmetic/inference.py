"""Answer equations by the exported decoders: numpy and onnxruntime, no torch.

The service, the MLflow model and the evaluation all decode with it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from arithmetic import artifacts, formats
from arithmetic.errors import InvalidModelError
from arithmetic.formats import Answer
from arithmetic.grammar import Equation
from arithmetic.tokenizer import IDS

# Raised by onnxruntime for a file that is missing, damaged or not a graph.
LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

PROMPTS, GENERATED = "prompts", "generated"  # input and output of a decoder


class OnnxModel:
    """Hold one loaded model directory; one thread, since a batch is tiny."""

    def __init__(self, directory: Path):
        """Load `directory`; raise InvalidModelError if a file is missing or does not load."""
        self.config = artifacts.load_config(directory)
        self.grammar = self.config.get_grammar()
        self._sessions = {
            fmt.name: _load(directory / artifacts.decoder_path(fmt.name))
            for fmt in formats.get_formats(self.grammar.operations)
        }

    def generate(self, format_name: str, prompts: np.ndarray) -> np.ndarray:
        """Decode greedily: prompt ids [B, P] int64 of one format to generated ids [B, T] int64."""
        return self._sessions[format_name].run([GENERATED], {PROMPTS: prompts})[0]

    def answer(self, equations: Sequence[Equation]) -> list[Answer]:
        """Return the answers in order, for any mix of operations."""
        by_format: dict[str, list[int]] = {}
        for index, equation in enumerate(equations):
            name = formats.get_format(equation.operation).name
            by_format.setdefault(name, []).append(index)
        digits = self.grammar.digits
        answers: dict[int, Answer] = {}
        for name, indices in by_format.items():
            rows = [equations[i] for i in indices]
            numbers = [(IDS[e.operation], e.operand_1, e.operand_2) for e in rows]
            operators, a, b = np.array(numbers).T
            prompts = formats.encode_prompts(operators, a, b, digits)
            generated = self.generate(name, prompts.astype(np.int64)).tolist()
            for index, equation, ids in zip(indices, rows, generated, strict=True):
                answers[index] = formats.parse_answer(equation.operation, ids, digits)
        return [answers[index] for index in range(len(equations))]


def _load(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except LOAD_ERRORS as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidModelError(f"{path} does not load: {reason}", artifacts.REPRODUCE) from error
