"""Equations to answers by the serving graph: numpy and onnxruntime, no torch.

The service, the MLflow model and the evaluation's check of the graph all answer through here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from arithmetic import layouts
from arithmetic.bundle import DECODER
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


class Engine:
    """One loaded bundle. Stateless after loading; one thread, since a batch is tiny."""

    def __init__(self, folder: Path):
        """Load `folder`; raises BrokenBundle if it is no bundle or the graph does not load."""
        self.grammar = load_config(folder).grammar
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(folder / DECODER), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as error:
            raise BrokenBundle(
                f"{folder / DECODER} does not load ({str(error).strip().splitlines()[0]}); "
                "run `dvc repro` to make it anew"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def generate(self, prompts: np.ndarray) -> np.ndarray:
        """Prompt ids [B, P] of any integer type to generated ids [B, T] int64."""
        return self._session.run(None, {self._input: prompts.astype(np.int64)})[0]

    def answer(self, equations: Sequence[Equation]) -> list[Answer]:
        """The model's answers, in order; any mix of operations."""
        digits = self.grammar.digits
        prompts = np.concatenate(
            [
                layouts.prompts(
                    equation.operation,
                    np.array([equation.operand_1]),
                    np.array([equation.operand_2]),
                    digits,
                )
                for equation in equations
            ]
        )
        return [
            layouts.read_answer(equation.operation, row, digits)
            for equation, row in zip(equations, self.generate(prompts), strict=True)
        ]
