"""Answer by an ordinary FastAPI route, pydantic in and out: a constant, or by PyTorch.

python -m benchmarks.peers.fastapi_app PORT [MODEL]        with a model one equation a call, eagerly
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

app = FastAPI()


class Question(BaseModel):
    """Ask one question, as strictly as the service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    equation: str = Field(max_length=64)
    steps: bool = False


class Prediction(BaseModel):
    """Hold the fields of the service's answer."""

    model_config = ConfigDict(protected_namespaces=())

    equation: str
    predicted_answer: str
    full_output: str
    latency_ms: float
    model_version: str


def load(directory: Path) -> Callable[[str], str]:
    """Return the function that answers by PyTorch with its key-value cache."""
    import torch

    from arithmetic import artifacts, formats
    from arithmetic.decoding import generate
    from arithmetic.model import load_model

    torch.set_num_threads(1)
    grammar, model = artifacts.load_config(directory).get_grammar(), load_model(directory)

    def answer(text: str) -> str:
        equation = grammar.parse(text)
        operation, a, b = equation.operation, [equation.operand_1], [equation.operand_2]
        fmt, lengths = formats.locate(operation, grammar)
        prompt = formats.encode_prompts(operation, np.array(a), np.array(b), grammar.digits)
        ids = generate(model, fmt, torch.from_numpy(prompt).long(), lengths.generated)
        return formats.parse_answer(operation, ids[0].tolist(), grammar.digits).text

    return answer


answer = load(Path(sys.argv[2])) if len(sys.argv) > 2 else lambda text: "962"


# On the event loop: with one core, a thread for each request would only cost.
@app.post("/predict")
async def predict(question: Question) -> Prediction:
    """Answer one equation."""
    text = answer(question.equation)
    return Prediction(
        equation=question.equation,
        predicted_answer=text,
        full_output=question.equation + text,
        latency_ms=0.0,
        model_version="1",
    )


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
