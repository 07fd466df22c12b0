"""The model as PyTorch runs it, with its key-value cache, behind an ordinary FastAPI route.

python -m benchmarks.peers.torch_eager PORT BUNDLE
"""

# Importing `stages` sets the environment that torch reads when it loads, so it comes first.
import stages  # noqa: F401, I001

import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from arithmetic import layouts
from arithmetic.config import load_config
from arithmetic.decoding import GreedyDecoder
from stages.weights import load_model


class Question(BaseModel):
    """One equation."""

    equation: str


class Prediction(BaseModel):
    """One answer."""

    predicted_answer: str


def create_app(bundle: Path) -> FastAPI:
    """One equation a call: nothing is batched, as in a first service that anybody writes."""
    torch.set_num_threads(1)
    grammar = load_config(bundle).grammar
    model = load_model(bundle)
    decoders = {
        operation: GreedyDecoder(model, index, layouts.lengths(operation, grammar.digits).generated)
        for index, operation in enumerate(grammar.operations)
    }
    app = FastAPI()

    # On the event loop: with one core, a thread for each request would only cost.
    @app.post("/predict")
    async def predict(question: Question) -> Prediction:
        equation = grammar.parse(question.equation)
        prompt = layouts.prompts(
            equation.operation,
            np.array([equation.operand_1]),
            np.array([equation.operand_2]),
            grammar.digits,
        )
        row = decoders[equation.operation](torch.from_numpy(prompt.astype(np.int64)))[0].tolist()
        answer = layouts.read_answer(equation.operation, row, grammar.digits)
        return Prediction(predicted_answer=answer.text)

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(Path(sys.argv[2])),
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
    )
