"""MLflow's scoring protocol: /ping, /version, /invocations.

What `mlflow models serve` answers for a registered version of this project, this answers as well:
rows with a column `equation` in, `{"predictions": [{"answer": "962"}]}` out. Errors are 400 with
MLflow's `error_code` and `message`. It speaks JSON; CSV and Parquet are refused with 415.
"""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from arithmetic.errors import InvalidEquation
from serving.live import Live
from serving.problems import ServingProblem
from serving.protocols.asking import answered, count, unready
from serving.protocols.body import Refused, kind, parsed, texts

# The MLflow whose protocol this is; tests/test_protocols.py compares the answers with its server's.
MLFLOW_VERSION = "3.17.2"
COLUMN = "equation"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")

# An HTTP status as MLflow's error code.
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
_EXAMPLES = {
    "dataframe_split": {"value": {"dataframe_split": {"columns": [COLUMN], "data": [["951+11="]]}}},
    "instances": {"value": {"instances": [{COLUMN: "951+11="}, {COLUMN: "7-12="}]}},
    "inputs": {"value": {"inputs": ["951+11=", "7-12="]}},
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "description": f"Exactly one of {', '.join(FORMATS)}; `params` is ignored.",
                "properties": {
                    "dataframe_split": {"type": "object"},
                    "dataframe_records": {"type": "array"},
                    "instances": {"type": ["array", "object"]},
                    "inputs": {"type": ["array", "object"]},
                    "params": {},
                },
            },
            "examples": _EXAMPLES,
        }
    },
}
_ANSWERS = {
    "200": {
        "description": "The model's answers, in order.",
        "content": {
            "application/json": {"example": {"predictions": [{"answer": "962"}]}},
        },
    },
    **{
        str(status): {
            "description": description,
            "content": {"application/json": {"schema": _ERROR_SCHEMA}},
        }
        for status, description in (
            (400, "The body is not in one of the formats, or an equation is refused."),
            (415, "The body is not JSON in UTF-8."),
            (429, "Over the rate limit; see Retry-After."),
            (500, "The model failed on an equation."),
            (503, "No model is loaded, or too many requests wait."),
            (504, "No answer before the deadline."),
        )
    },
}


def router(live: Live) -> APIRouter:
    """The protocol's routes."""
    routes = APIRouter(tags=["MLflow scoring protocol"])

    @routes.get("/ping", responses={503: {"description": "As /readyz."}})
    async def ping(request: Request) -> Response:
        """200 if requests may come, as /readyz."""
        ready = unready(request) is None
        return Response("\n", 200 if ready else 503, media_type="application/json")

    @routes.get("/version")
    async def version() -> Response:
        """The version of MLflow whose protocol is spoken."""
        return Response(MLFLOW_VERSION, media_type="application/json")

    @routes.post("/invocations", openapi_extra={"requestBody": _BODY, "responses": _ANSWERS})
    async def invocations(request: Request) -> Response:
        """Answer equations as an MLflow model server does."""
        try:
            _check_type(request.headers.get("content-type", ""))
            asked = equations(parsed(await request.body()))
            answers = await answered(request, live, asked)
        except Refused as problem:
            count(request, problem)
            return _failed(problem.status, str(problem))
        except InvalidEquation as problem:
            return _failed(400, str(problem))
        except ServingProblem as problem:
            return _failed(problem.status, str(problem), problem.headers)
        return _json({"predictions": [{"answer": one.answer.text} for one in answers]})

    return routes


def equations(content: dict[str, Any]) -> list[str]:
    """The equations in a parsed body, in any of the protocol's formats; raises Refused (400)."""
    given = [name for name in FORMATS if name in content]
    if len(given) != 1:
        raise Refused(
            400,
            f"the body must have exactly one of the fields {', '.join(FORMATS)}; it has "
            f"{', '.join(given) or 'none of them'}",
        )
    (name,) = given
    data = content[name]
    if name == "dataframe_split":
        return texts(_column_of_split(data), "the equation in row")
    if name == "dataframe_records" and not isinstance(data, list):
        raise Refused(400, f"{name} must be an array of objects, and is {kind(data)}")
    if isinstance(data, dict):
        column = _column_of(data, name)
        # A single value stands for a column of one, as in MLflow's own server.
        return texts(column if isinstance(column, list) else [column], f"{name}.{COLUMN}")
    if isinstance(data, list):
        return texts([_cell(row, name) for row in data], f"{name}: the equation in row")
    raise Refused(400, f"{name} must be an array or an object, and is {kind(data)}")


def _cell(row: Any, name: str) -> Any:
    """The equation of a row: a string, an object with the column, or an array of one."""
    if isinstance(row, dict):
        return _column_of(row, name)
    if isinstance(row, list):
        if len(row) != 1:
            raise Refused(400, f"{name}: a row has one value, the equation, and not {len(row)}")
        return row[0]
    return row


def _column_of(data: dict[str, Any], name: str) -> Any:
    if COLUMN not in data:
        raise Refused(400, f"{name} has no column {COLUMN!r}; the model needs it")
    return data[COLUMN]


def _column_of_split(frame: Any) -> list[Any]:
    if not isinstance(frame, dict) or not isinstance(frame.get("data"), list):
        raise Refused(400, "dataframe_split must be an object with the arrays columns and data")
    columns, rows = frame.get("columns"), frame["data"]
    if not isinstance(columns, list) or columns.count(COLUMN) != 1:
        raise Refused(400, f"dataframe_split.columns must name {COLUMN!r}; the model needs it")
    place = columns.index(COLUMN)
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise Refused(400, f"dataframe_split: row {index} has not {len(columns)} values")
    return [row[place] for row in rows]


def _check_type(content_type: str) -> None:
    """JSON in UTF-8, or Refused (415)."""
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if name != "application/json":
        raise Refused(
            415, f"the body must be application/json, and is called {content_type or 'nothing'!r}"
        )
    for parameter in parameters:
        if parameter.replace('"', "") not in ("charset=utf-8", "charset=utf8", ""):
            raise Refused(415, f"the body must be in UTF-8, and the header says {parameter!r}")


def _json(content: dict[str, Any], status: int = 200) -> Response:
    # Not JSONResponse: a message may repeat what UTF-8 cannot hold; json.dumps escapes it.
    return Response(json.dumps(content), status, media_type="application/json")


def _failed(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    response = _json({"error_code": _CODES[status], "message": message}, status)
    response.headers.update(headers or {})
    return response
