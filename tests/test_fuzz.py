"""Random input of every form: the right status, the right answer, and the service goes on.

How many cases each test tried is printed at the end of pytest's output (tests/conftest.py). They
are the same ones at every run; `FUZZ_CASES=5000 pytest tests/test_fuzz.py` tries as many others of
each kind.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from arithmetic.errors import InvalidEquation
from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from tests.live_service import NAME, ROOT, running

CASES = int(os.environ.get("FUZZ_CASES", "0"))
Report = Callable[[int], None]
# MLflow's own server calls these bodies JSON, which they are not; test_protocols.py has them.
NO_JSON = ("GET /ping", "GET /version")


def cases(usual: int) -> settings:
    """So many cases, always the same ones unless FUZZ_CASES asks for others."""
    return settings(
        max_examples=CASES or usual,
        derandomize=not CASES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(ROOT / "bundle", tmp_path_factory.mktemp("models")) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def tried(record_property) -> Report:
    """Notes the number of cases for the end of pytest's output."""
    return lambda count: record_property("cases", count)


def unharmed(client: httpx.Client) -> None:
    """Ready still, and right still."""
    assert client.get("/health").json()["status"] == "ok"
    assert client.post("/predict", json={"equation": "951+11="}).json()["predicted_answer"] == "962"


def test_the_service_does_what_its_openapi_description_says(address, client, tried):
    """Schemathesis: no 5xx, no status or body that is not described, nothing invalid accepted.

    Which equations exist is the grammar's business and not the schema's, so valid JSON may well be
    refused.
    """
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]  # an Err here fails the test
        if operation.label in NO_JSON:
            continue
        modes = [GenerationMode.POSITIVE]
        modes += [GenerationMode.NEGATIVE] if len(operation.body) else []
        for mode in modes:

            @cases(30)
            @given(case=operation.as_strategy(generation_mode=mode))
            def as_described(case: Any) -> None:
                nonlocal count
                count += 1
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            as_described()
    tried(count)
    unharmed(client)


# Texts near the grammar, and texts that have never heard of it.
NEAR = st.text("0123456789+-*/=", max_size=12) | st.from_regex(
    r"[0-9]{1,4}[-+*/×÷−]?[0-9]{0,4}=?\s?", fullmatch=True
)
ODD = st.text(max_size=70) | st.from_regex(r"\d{1,3}[+-]\d{1,3}=", fullmatch=True)
TEXTS = NEAR | ODD
GRAMMARS = st.builds(
    Grammar,
    st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, unique=True).map(tuple),
    st.sampled_from([0, 9, 99, 500, 999]),
)


def belongs(grammar: Grammar, text: str) -> Equation | None:
    """The grammar said a second time, in one expression."""
    symbols = "".join(map(re.escape, grammar.operations))
    length = f"{{1,{len(str(grammar.max_operand))}}}"
    pattern = rf"([0-9]{length})([{symbols}])([0-9]{length})="
    match = re.fullmatch(pattern, text)
    if match is None:
        return None
    first, operation, second = int(match[1]), match[2], int(match[3])
    if max(first, second) > grammar.max_operand or (operation == "/" and second == 0):
        return None
    return Equation(first, operation, second)


def test_the_grammar_takes_what_belongs_and_gives_a_reason_for_the_rest(tried):
    count = 0

    @cases(2000)
    @given(grammar=GRAMMARS, text=TEXTS)
    def judged(grammar: Grammar, text: str) -> None:
        nonlocal count
        count += 1
        expected = belongs(grammar, text)
        if expected is not None:
            assert grammar.parse(text) == expected
            return
        with pytest.raises(InvalidEquation) as refusal:
            grammar.parse(text)
        reason = str(refusal.value)
        assert reason.isprintable()
        assert len(reason) < 250

    judged()
    tried(count)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "equation",
        "equations",
        "show_work",
        "beam_width",
        "inputs",
        "instances",
        "dataframe_split",
        "columns",
        "data",
        "name",
        "shape",
        "datatype",
        "parameters",
        "binary_data_size",
        "outputs",
    ]
)
OBJECTS = st.dictionaries(NAMES | st.text(max_size=8), VALUES | st.lists(VALUES), max_size=5)
TENSORS = st.fixed_dictionaries(
    {"name": st.just("equation"), "datatype": st.sampled_from(["BYTES", "FP32"])},
    optional={"shape": VALUES, "data": VALUES, "parameters": VALUES},
)
BODIES = (
    OBJECTS.map(json.dumps)
    | VALUES.map(json.dumps)
    | st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=2)}).map(json.dumps)
    | TEXTS.map(lambda text: json.dumps({"equation": text}))
)
PATHS = ("/predict", "/predict/batch", "/invocations", f"/v2/models/{NAME}/infer")


def damaged(body: str, cut: int, place: int, byte: int) -> bytes:
    """A body that lost its end and has one byte changed."""
    content = bytearray(body.encode("utf-8", "surrogatepass"))
    if cut:
        del content[-cut:]
    if content and place >= 0:
        content[place % len(content)] = byte
    return bytes(content)


@pytest.mark.parametrize("path", PATHS)
def test_no_body_harms_the_service(client, path, tried):
    """Every body gets 200 or a 4xx with a JSON reason, from broken bytes to nearly right ones."""
    count = 0

    @cases(300)
    @given(
        body=BODIES,
        cut=st.just(0) | st.integers(0, 20),
        place=st.just(-1) | st.integers(0, 200),
        byte=st.integers(0, 255),
    )
    @example(body="[" * 50_000, cut=0, place=-1, byte=0)
    @example(body='{"a":' * 50_000, cut=0, place=-1, byte=0)
    @example(body='{"equation": ' + "9" * 5000 + "}", cut=0, place=-1, byte=0)
    @example(body='{"equation": "\\ud800+1="}', cut=0, place=-1, byte=0)
    @example(body='{"equation": "1+1=", "equation": "2+2="}', cut=0, place=-1, byte=0)
    @example(body='\ufeff{"equation": "1+1="}', cut=0, place=-1, byte=0)
    def answered(body: str, cut: int, place: int, byte: int) -> None:
        nonlocal count
        count += 1
        content = damaged(body, cut, place, byte)
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
        assert isinstance(answer.json(), dict)

    answered()
    tried(count)
    unharmed(client)


def test_what_is_answered_is_right_whoever_asked_how(client, tried):
    """Equations in many forms: if a route answers, it answers exactly, and all routes agree."""
    grammar, count = Grammar(("+", "-"), 999), 0

    @cases(200)
    @given(text=NEAR | st.from_regex(r"[0-9]{1,3}[+-][0-9]{1,3}=", fullmatch=True))
    def agreed(text: str) -> None:
        nonlocal count
        assume(text.isprintable())
        count += 1
        tensor = {"name": "equation", "datatype": "BYTES", "shape": [1], "data": [text]}
        one = client.post("/predict", json={"equation": text})
        two = client.post("/invocations", json={"inputs": [text]})
        three = client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
        equation = belongs(grammar, text)
        if equation is None:
            assert (one.status_code, two.status_code, three.status_code) == (422, 400, 400)
            reason = one.json()["detail"][0]["msg"]
            assert len(text) > 64 or reason == two.json()["message"] == three.json()["error"]
            return
        right = solve(equation)
        assert one.json()["predicted_answer"] == right
        assert two.json() == {"predictions": [{"answer": right}]}
        assert three.json()["outputs"][0]["data"] == [right]

    agreed()
    tried(count)
