"""Serve by BentoML with adaptive batching: one worker, no access log, no metrics.

MODEL=model bentoml serve bentoml_service:Arithmetic --port PORT
"""

import os
from pathlib import Path

import bentoml

from arithmetic.inference import OnnxModel

OFF = {"enabled": False}


@bentoml.service(workers=1, threads=1, metrics=OFF, logging={"access": OFF}, monitoring=OFF)
class Arithmetic:
    """Map `{"equations": ["1+1="]}` to `["2"]`; BentoML joins the lists of several requests."""

    def __init__(self) -> None:
        self.model = OnnxModel(Path(os.environ["MODEL"]))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    async def predict(self, equations: list[str]) -> list[str]:
        """Answer a batch in one call of the graph."""
        answers = self.model.answer([self.model.grammar.parse(text) for text in equations])
        return [answer.text for answer in answers]
