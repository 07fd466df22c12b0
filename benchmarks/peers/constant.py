"""Answer every question with a constant: an ordinary FastAPI route with pydantic in and out.

python -m benchmarks.peers.constant PORT
"""

import sys

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


@app.post("/predict")
async def predict(question: Question) -> Prediction:
    """Return the same answer to everything."""
    return Prediction(
        equation=question.equation,
        predicted_answer="962",
        full_output=question.equation + "962",
        latency_ms=0.0,
        model_version="1",
    )


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
