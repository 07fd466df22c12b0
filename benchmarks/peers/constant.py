"""Answer every question with a constant: an ordinary FastAPI route with pydantic in and out.

python -m benchmarks.peers.constant PORT
"""

import sys

import uvicorn
from fastapi import FastAPI

from serving.schemas import PredictRequest, PredictResponse

app = FastAPI()


@app.post("/predict")
async def predict(question: PredictRequest) -> PredictResponse:
    """Return the same answer to everything."""
    return PredictResponse(
        equation=question.equation,
        predicted_answer="962",
        full_output=question.equation + "962",
        latency_ms=0.0,
        model_version="1",
    )


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
