"""Answer clients of MLflow and of the Open Inference Protocol, as their own servers do.

MLflow's scoring protocol: /ping, /version, POST /invocations in JSON; a row's column is `equation`.
The Open Inference Protocol, version 2 over HTTP, in JSON: one input `equation`, one output
`answer`, both BYTES tensors. Errors have each protocol's own form. CSV, binary tensors, shared
memory and compressed bodies are rejected.
"""

from collections.abc import Awaitable, Callable, Iterator
from math import prod
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.error_handlers import InvalidInputError, ServiceError
from serving.loaded_model import LoadedModel
from serving.predict import parse_body, predict_many
from serving.schemas import MAX_EQUATIONS

MLFLOW_VERSION = "3.17.2"  # tests compare with this version's own server
COLUMN, INPUT, OUTPUT = "equation", "equation", "answer"
MAX_DIMENSIONS = 8

Endpoint = Callable[[Request], Awaitable[Response]]


class NotFoundError(ServiceError):
    """Report that a model or version is not served."""

    status = 404


router = APIRouter()


def _json(content: Any, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


# MLflow's scoring protocol


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class DataframeSplit(_Strict):
    """Hold rows as arrays, beside the names of their columns."""

    columns: list[str]
    data: list[list[Any]] = Field(max_length=MAX_EQUATIONS)

    @model_validator(mode="after")
    def _check_rows(self) -> "DataframeSplit":
        if self.columns.count(COLUMN) != 1:
            raise ValueError(f"columns must name {COLUMN!r}, once")
        for index, row in enumerate(self.data):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index} has {len(row)} values for {len(self.columns)}")
        if not all(isinstance(text, str) for text in self.column()):
            raise ValueError(f"{COLUMN!r} has a value that is not a string")
        return self

    def column(self) -> list[Any]:
        """Return the equations."""
        place = self.columns.index(COLUMN)
        return [row[place] for row in self.data]


class Record(_Strict):
    """Hold one row."""

    equation: str


Row = Record | str | Annotated[list[str], Field(min_length=1, max_length=1)]
Rows = Annotated[list[Row], Field(max_length=MAX_EQUATIONS)]


class Columns(_Strict):
    """Hold the rows as a column; a single value is a column of one."""

    equation: Annotated[list[str], Field(max_length=MAX_EQUATIONS)] | str


class InvocationsRequest(_Strict):
    """Ask in exactly one of MLflow's formats; `params` is ignored."""

    dataframe_split: DataframeSplit | None = None
    dataframe_records: Annotated[list[Record], Field(max_length=MAX_EQUATIONS)] | None = None
    instances: Rows | Columns | None = None
    inputs: Rows | Columns | None = None
    params: Any = None

    @model_validator(mode="after")
    def _check_one_format(self) -> "InvocationsRequest":
        names = ("dataframe_split", "dataframe_records", "instances", "inputs")
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}")
        return self

    def equations(self) -> list[str]:
        """Return the texts of all rows."""
        if self.dataframe_split is not None:
            return self.dataframe_split.column()
        content = self.dataframe_records or self.instances or self.inputs or []
        if isinstance(content, Columns):
            column = content.equation
            return [column] if isinstance(column, str) else column
        return [row.equation if isinstance(row, Record) else "".join(row) for row in content]


_MLFLOW_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _mlflow_error(error: ServiceError) -> dict[str, str]:
    code = _MLFLOW_CODES.get(_status(error), "BAD_REQUEST")
    return {"error_code": code, "message": str(error)}


def _status(error: ServiceError) -> int:
    return 400 if isinstance(error, InvalidInputError) else error.status


def _with_errors(endpoint: Endpoint, render: Callable[[ServiceError], Any]) -> Endpoint:
    """Answer the endpoint's errors in a protocol's own form."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ServiceError as error:
            request.state.outcome = error.outcome
            response = _json(render(error), _status(error))
            response.headers.update(error.headers)
            return response

    return answer


@router.get("/ping", tags=["MLflow"], response_class=Response)
async def ping(request: Request) -> Response:
    """Answer 200 if requests may be sent, as /readyz."""
    return Response(
        "\n",
        503 if request.app.state.manager.unready_reason() else 200,
        media_type="application/json",
    )


@router.get("/version", tags=["MLflow"], response_class=Response)
async def version() -> Response:
    """Return the version of MLflow whose protocol this is."""
    return Response(MLFLOW_VERSION, media_type="application/json")


async def invocations(request: Request) -> Response:
    """Answer as an MLflow model server."""
    body = await parse_body(InvocationsRequest, request.scope, request.receive)
    texts = body.equations()
    model = request.app.state.manager.get_model()
    request.state.version = model.version.version
    predictions = await predict_many(model, texts)
    return _json({"predictions": [{"answer": p.answer.text} for p in predictions]})


# The Open Inference Protocol


Size = Annotated[int, Field(ge=0, le=MAX_EQUATIONS)]


class InferInput(_Strict):
    """Hold a tensor of equations, its data flat or nested, in row-major order."""

    name: Literal["equation"]
    datatype: Literal["BYTES"]
    shape: list[Size] = Field(max_length=MAX_DIMENSIONS, examples=[[1]])
    data: list[Any] = Field(examples=[["951+11="]])

    @model_validator(mode="after")
    def _check_data(self) -> "InferInput":
        elements = list(_flatten(self.data))
        if len(elements) != prod(self.shape):
            raise ValueError(f"data has {len(elements)} elements and the shape is {self.shape}")
        if len(elements) > MAX_EQUATIONS:
            raise ValueError(f"{len(elements)} equations are more than {MAX_EQUATIONS}")
        if not all(isinstance(element, str) for element in elements):
            raise ValueError("data has an element that is not a string")
        return self


def _flatten(data: list[Any], depth: int = 1) -> Iterator[Any]:
    if depth > MAX_DIMENSIONS:
        raise ValueError(f"data is nested more than {MAX_DIMENSIONS} deep")
    for element in data:
        if isinstance(element, list):
            yield from _flatten(element, depth + 1)
        else:
            yield element


class InferRequest(_Strict):
    """Ask a tensor of equations; `parameters` and `outputs` are ignored."""

    id: str | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=1)


def _find_model(request: Request) -> LoadedModel:
    """Return the served model; raise NotFoundError if the path names another."""
    model: LoadedModel = request.app.state.manager.get_model()
    name, number = request.path_params["name"], request.path_params.get("version")
    if name != model.version.name:
        raise NotFoundError(f"model {name!r} is not served; {model.version.name!r} is")
    if number not in (None, model.version.version):
        raise NotFoundError(f"version {number!r} is not served; {model.version.version!r} is")
    return model


@router.get("/v2", tags=["Open Inference Protocol"])
async def server_metadata(request: Request) -> dict[str, Any]:
    """Describe the server."""
    return {"name": request.app.title, "version": request.app.version, "extensions": []}


@router.get("/v2/health/live", tags=["Open Inference Protocol"])
async def server_live() -> dict[str, bool]:
    """Report that the process answers."""
    return {"live": True}


@router.get("/v2/health/ready", tags=["Open Inference Protocol"], response_class=Response)
async def server_ready(request: Request) -> Response:
    """Report whether requests may be sent, as /readyz."""
    is_ready = request.app.state.manager.unready_reason() is None
    return _json({"ready": is_ready}, 200 if is_ready else 503)


async def model_metadata(request: Request) -> Response:
    """Describe the model's input and output."""
    version = _find_model(request).version
    tensor = {"datatype": "BYTES", "shape": [-1]}
    return _json(
        {
            "name": version.name,
            "versions": [version.version],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": INPUT, **tensor}],
            "outputs": [{"name": OUTPUT, **tensor}],
        }
    )


async def model_ready(request: Request) -> Response:
    """Report whether the model, or this version of it, is loaded."""
    return _json({"name": _find_model(request).version.name, "ready": True})


async def infer(request: Request) -> Response:
    """Answer a tensor of equations."""
    model = _find_model(request)
    body = await parse_body(InferRequest, request.scope, request.receive)
    tensor = body.inputs[0]
    request.state.version = model.version.version
    predictions = await predict_many(model, list(_flatten(tensor.data)))
    answers = [prediction.answer.text for prediction in predictions]
    content: dict[str, Any] = {
        "model_name": model.version.name,
        "model_version": model.version.version,
        "outputs": [{"name": OUTPUT, "datatype": "BYTES", "shape": tensor.shape, "data": answers}],
    }
    if body.id is not None:
        content["id"] = body.id
    return _json(content)


def _oip_routes() -> Iterator[Route]:
    for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        for suffix, endpoint, method in (
            ("", model_metadata, "GET"),
            ("/ready", model_ready, "GET"),
            ("/infer", infer, "POST"),
        ):
            answer = _with_errors(endpoint, lambda error: {"error": str(error)})
            yield Route(prefix + suffix, answer, methods=[method])


ROUTES = [
    Route("/invocations", _with_errors(invocations, _mlflow_error), methods=["POST"]),
    *_oip_routes(),
]
