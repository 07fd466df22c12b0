"""Answer clients of MLflow and of the Open Inference Protocol, as their own servers do.

MLflow's scoring protocol: /ping, POST /invocations in JSON; a row's column is `equation`.
The Open Inference Protocol, version 2 over HTTP, in JSON: one input `equation`, one output
`answer`, both BYTES tensors. CSV, binary tensors, shared memory and compressed bodies are rejected.
"""

from math import prod
from typing import Annotated, Any, Literal, Self

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from serving.error_handlers import RESPONSES
from serving.loaded_model import LoadedModel
from serving.predict import Model, predict_many, require_json
from serving.schemas import MAX_EQUATIONS

COLUMN, INPUT, OUTPUT = "equation", "equation", "answer"

router = APIRouter()
ANSWERS: Any = {"dependencies": [Depends(require_json)], "responses": RESPONSES}  # of POST routes


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


# MLflow's scoring protocol


def _read_split(content: Any) -> Any:
    """Return the equations of rows beside the names of their columns."""
    match content:
        case {"columns": list(columns), "data": list(rows)} if columns.count(COLUMN) == 1:
            if all(isinstance(row, list) and len(row) == len(columns) for row in rows):
                return [row[columns.index(COLUMN)] for row in rows]
    raise ValueError(f"give `columns`, {COLUMN!r} among them, and `data`, rows of that length")


def _read_rows(content: Any) -> Any:
    """Return the equations of a column, or of rows: records, lists of one value, or values."""
    match content:
        case {"equation": list(column)}:
            return column
        case {"equation": text}:
            return [text]
        case list(rows):
            return [_read_row(row) for row in rows]
    return content


def _read_row(row: Any) -> Any:
    match row:
        case {"equation": text} | [text]:
            return text
    return row


Texts = Annotated[list[str], Field(max_length=MAX_EQUATIONS)]
Split = Annotated[Texts, BeforeValidator(_read_split, json_schema_input_type=dict[str, Any])]
Rows = Annotated[
    Texts, BeforeValidator(_read_rows, json_schema_input_type=list[Any] | dict[str, Any])
]


class InvocationsRequest(_Strict):
    """Ask in exactly one of MLflow's formats; other keys, as `params`, are ignored."""

    dataframe_split: Split = Field(
        default=[], description="`columns`, `equation` among them, and `data`, rows of values."
    )
    dataframe_records: Rows = Field(default=[], description="Objects with the key `equation`.")
    instances: Rows = Field(default=[], description="The same, equations, or a column of them.")
    inputs: Rows = Field(default=[], description="As `instances`.", examples=[["951+11="]])

    @model_validator(mode="after")
    def _check_one_format(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self

    def equations(self) -> list[str]:
        """Return the texts of all rows."""
        return [*self.dataframe_split, *self.dataframe_records, *self.instances, *self.inputs]


@router.get("/ping", tags=["MLflow"], response_class=Response)
async def ping(request: Request) -> Response:
    """Answer 200 if requests may be sent, as /readyz."""
    status = 503 if request.app.state.manager.unready_reason() else 200
    return Response("\n", status, media_type="application/json")


@router.post("/invocations", tags=["MLflow"], **ANSWERS)
async def invocations(body: InvocationsRequest, model: Model) -> dict[str, list[dict[str, str]]]:
    """Answer as an MLflow model server."""
    answers = await predict_many(model, body.equations())
    return {"predictions": [{"answer": answer.text} for answer in answers]}


# The Open Inference Protocol


class InferInput(_Strict):
    """Hold a tensor of equations; its data is nested as the shape says, or flat in that order."""

    name: Literal["equation"]
    datatype: Literal["BYTES"]
    shape: list[Annotated[int, Field(ge=0)]] = Field(max_length=8, examples=[[1]])
    data: list[Any] = Field(examples=[["951+11="]])

    @model_validator(mode="after")
    def _flatten_data(self) -> Self:
        array = np.array(self.data, object)
        if array.shape not in (tuple(self.shape), (prod(self.shape),)):
            raise ValueError(f"data has the shape {[*array.shape]}, which is not {self.shape}")
        if array.size > MAX_EQUATIONS:
            raise ValueError(f"{array.size} equations are more than {MAX_EQUATIONS}")
        self.data = array.ravel().tolist()
        if not all(isinstance(element, str) for element in self.data):
            raise ValueError("data has an element that is not a string")
        return self


def _check_unicode(text: str) -> str:
    """Raise ValueError for a lone surrogate, which JSON can hold and an answer cannot."""
    text.encode()
    return text


class InferRequest(_Strict):
    """Ask a tensor of equations; `parameters` and `outputs` are ignored."""

    id: Annotated[str, AfterValidator(_check_unicode)] | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=1)


async def find_model(model: Model, request: Request) -> LoadedModel:
    """Return the served model; answer 404 if the path names another."""
    served, path = model.version, request.path_params
    name, number = path["name"], path.get("version", served.version)
    if (name, number) != (served.name, served.version):
        raise HTTPException(
            404, f"version {number} of {name} is not served; {served.version} of {served.name} is"
        )
    return model


NamedModel = Annotated[LoadedModel, Depends(find_model)]


@router.get("/v2", tags=["Open Inference Protocol"])
async def server_metadata(request: Request) -> dict[str, Any]:
    """Describe the server."""
    return {"name": request.app.title, "version": request.app.version, "extensions": []}


@router.get("/v2/health/live", tags=["Open Inference Protocol"])
async def server_live() -> dict[str, bool]:
    """Report that the process answers."""
    return {"live": True}


@router.get("/v2/health/ready", tags=["Open Inference Protocol"])
async def server_ready(request: Request, response: Response) -> dict[str, bool]:
    """Report whether requests may be sent, as /readyz."""
    is_ready = request.app.state.manager.unready_reason() is None
    response.status_code = 200 if is_ready else 503
    return {"ready": is_ready}


@router.get("/v2/models/{name}", tags=["Open Inference Protocol"])
@router.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
async def model_metadata(model: NamedModel) -> dict[str, Any]:
    """Describe the model's input and output."""
    tensor = {"datatype": "BYTES", "shape": [-1]}
    return {
        "name": model.version.name,
        "versions": [model.version.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, **tensor}],
        "outputs": [{"name": OUTPUT, **tensor}],
    }


@router.get("/v2/models/{name}/ready", tags=["Open Inference Protocol"])
@router.get("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(model: NamedModel) -> dict[str, Any]:
    """Report whether the model, or this version of it, is loaded."""
    return {"name": model.version.name, "ready": True}


@router.post("/v2/models/{name}/infer", tags=["Open Inference Protocol"], **ANSWERS)
@router.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False, **ANSWERS)
async def infer(body: InferRequest, model: NamedModel) -> dict[str, Any]:
    """Answer a tensor of equations."""
    tensor = body.inputs[0]
    answers = [answer.text for answer in await predict_many(model, tensor.data)]
    content: dict[str, Any] = {
        "model_name": model.version.name,
        "model_version": model.version.version,
        "outputs": [{"name": OUTPUT, "datatype": "BYTES", "shape": tensor.shape, "data": answers}],
    }
    if body.id is not None:
        content["id"] = body.id
    return content
