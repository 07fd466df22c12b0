"""POST /explain: the decoder's tokens with their names, probabilities and attention."""

import asyncio
import threading
import time

import numpy as np
import pytest

from arithmetic import formats
from arithmetic.explain import explain
from arithmetic.grammar import Equation, solve
from arithmetic.inference import OnnxModel
from serving.error_handlers import DeadlineExceededError, OverloadedError
from serving.explanation import MAX_UNFINISHED, TOKENS, ExplainThread, explain_token
from serving.schemas import ExplainResponse
from tests.random_models import write_model


def ask(client, equation):
    return client.post("/explain", json={"equation": equation})


@pytest.fixture(scope="module", params=["dot_product", "positional"])
def random_directory(request, tmp_path_factory):
    """Return a model of all formats with random weights."""
    folder = tmp_path_factory.mktemp("random") / request.param
    return write_model(folder, "+-*/", 99, request.param)


@pytest.mark.parametrize("equation", ["95+16=", "7-12=", "98*76=", "98/7="])
def test_the_tokens_are_the_decoders_and_the_most_probable(
    start_service, random_directory, equation
):
    client = start_service(model_uri=str(random_directory), max_error_rate=1)
    body = ask(client, equation).json()
    assert ExplainResponse(**body).model_dump() == body
    decoders = OnnxModel(random_directory)
    parsed = decoders.grammar.parse(equation)
    (answer,) = decoders.answer([parsed])
    lengths = formats.get_format(parsed.operation).lengths(2)
    tokens = body["tokens"]
    assert len(body["prompt"]) == lengths.prompt
    assert len(tokens) == lengths.generated
    assert body["scratchpad_length"] == lengths.scratchpad
    written = "".join(t["token"] if len(t["token"]) == 1 else "?" for t in tokens)
    assert written[: lengths.scratchpad] == answer.scratchpad
    assert (body["predicted_answer"], body["exact_answer"]) == (answer.text, solve(parsed))
    for index, token in enumerate(tokens):
        others = [other["probability"] for other in token["runners_up"]]
        assert token["probability"] >= others[0] >= others[1] >= others[2] > 0
        attention = np.array(token["attention"])
        assert attention.shape == (2, 4, lengths.prompt + index)
        assert np.abs(attention.sum(-1) - 1).max() < 0.05  # rounded to three places
        assert token["name"]
        assert token["explanation"]


@pytest.mark.parametrize(
    ("operation", "name", "start"),
    [
        ("+", "carry 1", "tens: "),
        ("+", "digit 0", "ones: "),
        ("-", "sign", "a borrow is left over"),
        ("-", "zero so far 0", "1 while"),
        ("*", "row 1 ones 0", "9 x 1 tens"),
        ("*", "sum 1 carry 1", "9 + 90 ="),
        ("/", "4b 0", "12: 2 times"),
        ("/", "quotient 1", "tens: "),
        ("/", "place 0 try 8 borrow 1", "8 times"),
        ("/", "place 0 try 1 digit 0", "1 times"),
        ("/", "answer remainder 1", "a digit of the remainder"),
    ],
)
def test_a_token_has_the_line_of_its_step(operation, name, start):
    first, second = np.array([9]), np.array([12 if operation == "/" else 11])
    columns = formats.build_columns(operation, first, second, 2)
    values = [TOKENS[int(column[0])] for column in columns.columns]
    scratchpad = "".join(values[6 : columns.answer_start])
    equation = Equation(9, operation, int(second[0]))
    lines = explain(equation, scratchpad, 2)
    assert explain_token(name, lines, 2).startswith(start)


def test_every_token_of_every_operation_has_an_explanation():
    for operation in "+-*/":
        columns = formats.build_columns(operation, np.array([1]), np.array([1]), 4)
        for name in columns.names[10:]:
            assert explain_token(name, ["line"] * 99, 4)


def test_a_rejected_equation_and_a_damaged_model_have_the_services_errors(client):
    response = ask(client, "1*1=")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "equation"]
    response = ask(client, "1+1=")  # this model has a decoder and no weights
    assert (response.status_code, list(response.json())) == (500, ["detail"])


def test_explanations_run_one_by_one_and_few_wait():
    async def ask_too_often() -> list:
        calls = [thread.run(lambda: release.wait(10)) for _ in range(MAX_UNFINISHED + 1)]
        results = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)
        release.set()
        return await results

    release, thread = threading.Event(), ExplainThread(deadline_seconds=10)
    *others, last = asyncio.run(ask_too_often())
    assert others == [True] * MAX_UNFINISHED
    assert isinstance(last, OverloadedError)


def test_an_explanation_that_takes_too_long_is_given_up():
    with pytest.raises(DeadlineExceededError):
        asyncio.run(ExplainThread(deadline_seconds=0.01).run(lambda: time.sleep(0.1)))
