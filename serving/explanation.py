"""Explain an answer: POST /explain; POST /compare asks a second service for its explanation.

The served decoder generates the tokens; one pass of `serving.numpy_transformer` over them has each
token's probability and each head's attention. A thread of its own does both, so `/predict` does
not wait.
"""

import asyncio
import http.client
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic_core import to_json

from arithmetic import artifacts, formats
from arithmetic.explain import PLACES, explain
from arithmetic.grammar import Equation, solve
from arithmetic.tokenizer import CHARACTERS
from serving.error_handlers import (
    RESPONSES,
    DeadlineExceededError,
    ModelUnavailableError,
    OverloadedError,
)
from serving.loaded_model import LoadedModel
from serving.numpy_transformer import forward, read_weights, softmax
from serving.predict import Model, parse_equation, require_json
from serving.schemas import ExplainRequest, ExplainResponse
from serving.settings import Settings

router = APIRouter(dependencies=[Depends(require_json)], responses=RESPONSES)
Result = TypeVar("Result")

MAX_UNFINISHED = 5
RUNNERS_UP = 3
TOKENS = (*CHARACTERS, "END")
# Of tokens that no line of `arithmetic.explain` shows.
PURPOSES = {
    "zero so far": "1 while all digits so far are zero; the complement needs it",
    "sign": "the sign of the answer",
    "answer": "a digit of the answer",
    "answer carry": "the carry that is left over",
    "answer quotient": "a digit of the quotient",
    "answer remainder": "a digit of the remainder",
    "end": "the answer is complete",
}


class ExplainThread:
    """Run functions one after the other in a thread; few may wait."""

    def __init__(self, deadline_seconds: float):
        self._deadline_seconds = deadline_seconds
        self._pool = ThreadPoolExecutor(1, "explain")
        self._unfinished = 0

    async def run(self, function: Callable[[], Result]) -> Result:
        """Return the function's result; raise OverloadedError or DeadlineExceededError."""
        if self._unfinished >= MAX_UNFINISHED:
            raise OverloadedError(f"{self._unfinished} explanations wait; retry in a second")
        self._unfinished += 1
        try:
            call = asyncio.get_running_loop().run_in_executor(self._pool, function)
            return await asyncio.wait_for(call, self._deadline_seconds)
        except TimeoutError as error:
            message = f"no explanation within {self._deadline_seconds:g} s"
            raise DeadlineExceededError(message) from error
        finally:
            self._unfinished -= 1


@router.post("/explain", response_model=ExplainResponse)
async def explain_answer(body: ExplainRequest, model: Model, request: Request) -> Response:
    """Return each token with its probability, its runners-up and where each head looked."""
    equation = parse_equation(model, body.equation, "equation")
    thread: ExplainThread = request.app.state.explain_thread
    content = await thread.run(lambda: to_json(explain_tokens(model, equation)))
    return Response(content, media_type="application/json")


@router.post("/compare", response_model=ExplainResponse)
async def compare(body: ExplainRequest, request: Request) -> Response:
    """Return POST /explain of the service at COMPARE_URL; 404 where none is set."""
    settings: Settings = request.app.state.settings
    if not settings.compare_url:
        raise HTTPException(404, "COMPARE_URL is not set")
    headers = {
        "Content-Type": "application/json",
        "X-API-Key": request.headers.get("x-api-key", ""),
    }
    url = f"{settings.compare_url.rstrip('/')}/explain"
    question = urllib.request.Request(url, body.model_dump_json().encode(), headers)

    def ask() -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(question, timeout=settings.deadline_seconds) as file:
                return bytes(file.read())
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnavailableError(f"{url}: {error}") from error

    content = await request.app.state.compare_thread.run(ask)
    return Response(content, media_type="application/json")


def explain_tokens(model: LoadedModel, equation: Equation) -> dict[str, Any]:
    """Return the body of the response, an `ExplainResponse`."""
    grammar, operation = model.grammar, equation.operation
    fmt, digits = formats.get_format(operation), model.grammar.digits
    operands = np.array([equation.operand_1]), np.array([equation.operand_2])
    prompt = formats.encode_prompts(operation, *operands, digits).astype(np.int64)
    generated = model.decoders.generate(fmt.name, prompt)[0].tolist()
    logits, attention = forward(
        read_weights(model.directory / artifacts.WEIGHTS),
        model.decoders.config.model,
        formats.locate(operation, grammar)[0],
        np.append(prompt, generated[:-1]),
    )
    probabilities = softmax(logits.astype(np.float64)).round(9)
    attention = attention.astype(np.float64).round(3)
    answer = formats.parse_answer(operation, generated, digits)
    names = formats.build_columns(operation, *operands, digits).names
    if operation == "/":
        parts = [f"answer {part} {i}" for part in ("quotient", "remainder") for i in range(digits)]
        names[-len(parts) - 1 : -1] = parts
    lines = explain(equation, answer.scratchpad, digits)
    tokens = []
    # The token at one position is predicted, and looks around, from the position before.
    for position, token in enumerate(generated, prompt.shape[1] - 1):
        row, name = probabilities[position], names[position + 1]
        others = [n for n in np.argsort(-row).tolist() if n != token][:RUNNERS_UP]
        tokens.append(
            {
                "token": TOKENS[token],
                "name": label(name),
                "explanation": explain_token(name, lines, digits),
                "probability": row[token],
                "runners_up": [{"token": TOKENS[n], "probability": row[n]} for n in others],
                "attention": attention[:, :, position, : position + 1].tolist(),
            }
        )
    return {
        "equation": str(equation),
        "prompt": [TOKENS[token] for token in prompt[0]],
        "scratchpad_length": len(answer.scratchpad),
        "tokens": tokens,
        "predicted_answer": answer.text,
        "exact_answer": solve(equation),
        "model_version": model.version.version,
    }


def label(name: str) -> str:
    """Return a column's name with its place as a word: `carry 0` is `carry, ones`."""
    stem, _, number = name.rpartition(" ")
    is_place = number.isdecimal() and int(number) < len(PLACES)
    return f"{stem}, {PLACES[int(number)]}" if is_place else name


def explain_token(name: str, lines: Sequence[str], digits: int) -> str:
    """Return the line of `arithmetic.explain` that a column belongs to, else its purpose."""
    line = _line_number(name.split(), digits)
    if line is not None and line < len(lines):
        return lines[line].strip()
    return PURPOSES.get(name) or PURPOSES[name.rpartition(" ")[0]]


def _line_number(words: Sequence[str], digits: int) -> int | None:
    match words:
        case ("carry" | "digit" | "row", number, *_):
            return int(number)
        case ("sign",):
            return digits  # there only for a negative result
        case ("sum", number, *_):
            return digits - 1 + int(number)
        case ("2b" | "4b" | "8b", _):
            return 0
        case ("quotient" | "remainder", _):
            return 1
        case ("place", place, "try", factor, *_):
            return 2 + 5 * (digits - 2 - int(place)) + 1 + "8421".index(factor)
    return None
