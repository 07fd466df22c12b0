"""Answer one equation a call by PyTorch with its key-value cache, behind a FastAPI route.

python -m benchmarks.peers.torch_eager PORT MODEL
"""

import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from arithmetic import artifacts, formats
from arithmetic.decoding import decode_greedily
from arithmetic.model import load_model


class Question(BaseModel):
    """Ask one equation."""

    equation: str


def create_app(directory: Path) -> FastAPI:
    """Return the application."""
    torch.set_num_threads(1)
    grammar, model = artifacts.load_config(directory).get_grammar(), load_model(directory)
    all_formats = formats.get_formats(grammar.operations)
    app = FastAPI()

    # On the event loop: with one core, a thread for each request would only cost.
    @app.post("/predict")
    async def predict(question: Question) -> dict[str, str]:
        equation = grammar.parse(question.equation)
        fmt = formats.get_format(equation.operation)
        operands = np.array([equation.operand_1]), np.array([equation.operand_2])
        prompt = formats.encode_prompts(equation.operation, *operands, grammar.digits)
        ids = decode_greedily(
            model,
            all_formats.index(fmt),
            torch.from_numpy(prompt.astype(np.int64)),
            fmt.lengths(grammar.digits).generated,
        )
        answer = formats.parse_answer(equation.operation, ids[0].tolist(), grammar.digits)
        return {"predicted_answer": answer.text}

    return app


if __name__ == "__main__":
    application = create_app(Path(sys.argv[2]))
    uvicorn.run(application, port=int(sys.argv[1]), access_log=False, log_level="warning")
