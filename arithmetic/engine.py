"""Equations to answers by the serving graph: numpy and onnxruntime, no torch.

The service, the MLflow model and the evaluation's check of the graph all answer through here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.errors import BrokenBundle
from arithmetic.grammar import Equation
from arithmetic.layouts import Answer

# What onnxruntime raises for a file that is missing, damaged or no graph.
_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


# Inputs and output of a serving graph; the length of BEAMS is the width of a beam search.
PROMPTS, BEAMS, GENERATED = "prompts", "beams", "generated"


class Engine:
    """One loaded bundle. Stateless after loading; one thread, since a batch is tiny."""

    def __init__(self, folder: Path):
        """Load `folder`; raises BrokenBundle if it is no bundle or a graph does not load."""
        self.grammar = load_config(folder).grammar
        self._folder = folder
        self._greedy = {
            operation: _load(folder / bundle.decoder(operation))
            for operation in self.grammar.operations
        }
        # Loaded when first asked for: most services never are, and would start more slowly.
        self._beams: dict[str, ort.InferenceSession] = {}

    def generate(self, operation: str, prompts: np.ndarray, beam_width: int = 1) -> np.ndarray:
        """Prompt ids [B, P] int64, all of one operation, to generated ids [B, T] int64.

        Raises:
            BrokenBundle: the graph of the beam search does not load.
        """
        if beam_width == 1:
            return self._greedy[operation].run([GENERATED], {PROMPTS: prompts})[0]
        session = self._beams.get(operation)
        if session is None:  # twice at once does no harm
            session = _load(self._folder / bundle.decoder(operation, beam=True))
            self._beams[operation] = session
        beams = np.zeros(beam_width, np.int64)
        return session.run([GENERATED], {PROMPTS: prompts, BEAMS: beams})[0]

    def answer(self, equations: Sequence[Equation], beam_width: int = 1) -> list[Answer]:
        """The model's answers, in order; any mix of operations. A beam of 1 is greedy decoding."""
        by_operation: dict[str, list[int]] = {}
        for index, equation in enumerate(equations):
            by_operation.setdefault(equation.operation, []).append(index)
        digits = self.grammar.digits
        answers: dict[int, Answer] = {}
        for operation, indices in by_operation.items():
            operands = np.array(
                [(equations[i].operand_1, equations[i].operand_2) for i in indices], np.int64
            )
            prompts = layouts.prompts(operation, operands[:, 0], operands[:, 1], digits)
            rows = self.generate(operation, prompts.astype(np.int64), beam_width).tolist()
            for index, row in zip(indices, rows, strict=True):
                answers[index] = layouts.read_answer(operation, row, digits)
        return [answers[index] for index in range(len(equations))]


def _load(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        raise BrokenBundle(
            f"{path} does not load ({str(error).strip().splitlines()[0]}); "
            "run `dvc repro` to make it anew"
        ) from error
