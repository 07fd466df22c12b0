"""The Open Inference Protocol, version 2 over HTTP (KServe, Triton, MLServer, OpenVINO).

One input `equation`, a BYTES tensor of any shape; one output `answer` of the same shape. Tensors
are read and written in JSON and in the binary extension. Errors are `{"error": "…"}`. Compressed
bodies, shared memory and the classification extension are refused.
"""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from arithmetic.errors import InvalidEquation
from serving.live import Live, Served
from serving.predict import serving
from serving.problems import ServingProblem
from serving.protocols import tensors
from serving.protocols.asking import answered, count, unready
from serving.protocols.body import Refused, kind, parsed
from serving.protocols.inference_docs import INFER, METADATA, READY
from serving.protocols.tensors import Tensor

INPUT, OUTPUT = "equation", "answer"
HEADER_LENGTH = "Inference-Header-Content-Length"
_UNSUPPORTED = ("shared_memory_region", "classification")


def router(live: Live) -> APIRouter:
    """The protocol's routes."""
    routes = APIRouter(tags=["Open Inference Protocol"])

    @routes.get("/v2")
    async def server(request: Request) -> dict[str, Any]:
        """What answers here."""
        return {
            "name": request.app.title,
            "version": request.app.version,
            "extensions": ["binary_tensor_data"],
        }

    @routes.get("/v2/health/live")
    async def is_live() -> dict[str, bool]:
        """Whether the process answers at all."""
        return {"live": True}

    @routes.get("/v2/health/ready", responses={503: {"description": "As /readyz."}})
    async def is_ready(request: Request) -> Response:
        """Whether requests may come, as /readyz."""
        ready = unready(request) is None
        return _json({"ready": ready}, 200 if ready else 503)

    @routes.get("/v2/models/{name}", openapi_extra=METADATA)
    @routes.get("/v2/models/{name}/versions/{version}", openapi_extra=METADATA)
    async def metadata(name: str, version: str | None = None) -> Response:
        """What the model takes and gives."""
        try:
            served = _served(live, name, version)
        except (Refused, ServingProblem) as problem:
            return _failed(problem)
        return _json(
            {
                "name": served.name,
                "versions": [one.version for one in _loaded(live)],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": OUTPUT, "datatype": "BYTES", "shape": [-1]}],
            }
        )

    @routes.get("/v2/models/{name}/ready", openapi_extra=READY)
    @routes.get("/v2/models/{name}/versions/{version}/ready", openapi_extra=READY)
    async def model_ready(name: str, version: str | None = None) -> Response:
        """Whether this model, or this version of it, is loaded."""
        try:
            served = _served(live, name, version)
        except (Refused, ServingProblem) as problem:
            return _failed(problem)
        return _json({"name": served.name, "ready": True})

    @routes.post("/v2/models/{name}/infer", openapi_extra=INFER)
    @routes.post("/v2/models/{name}/versions/{version}/infer", openapi_extra=INFER)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Answer a tensor of equations."""
        try:
            served = _served(live, name, version)
            content, tensor = _read(request, await request.body())
            binary = _binary_output(content)
            # A version that is named answers; otherwise the service picks, as for /predict.
            chosen = None if version is None else served
            answers = await answered(request, live, tensor.elements, chosen)
        except Refused as problem:
            count(request, problem)
            return _failed(problem)
        except (InvalidEquation, ServingProblem) as problem:
            return _failed(problem)
        by = answers[0].served if answers else served
        return _written(content, by, tensor, [one.answer.text for one in answers], binary)

    return routes


def _loaded(live: Live) -> list[Served]:
    """The versions that can answer: Production, and a candidate beside it; raises Unavailable."""
    candidate = None if live.candidate is None else live.candidate.served
    return [live.served or serving(live), *([candidate] if candidate else [])]


def _served(live: Live, name: str, version: str | None) -> Served:
    """The version that the path names, else Production; raises Refused (404) or Unavailable."""
    loaded = _loaded(live)
    if name != loaded[0].name:
        raise Refused(404, f"there is no model {name!r}; {loaded[0].name!r} is served")
    for served in loaded:
        if version in (None, served.version):
            return served
    there = ", ".join(served.version for served in loaded)
    raise Refused(404, f"version {version!r} of {name!r} is not served; {there} is")


def _read(request: Request, body: bytes) -> tuple[dict[str, Any], Tensor]:
    """The request's JSON and its one input; raises Refused (400, 415)."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refused(415, f"bodies encoded by {encoding!r} are not read; send it as it is")
    header = request.headers.get(HEADER_LENGTH)
    behind = b""
    if header is not None:
        short = header.isascii() and header.isdigit() and len(header) < 10
        if not (short and int(header) <= len(body)):
            raise Refused(400, f"{HEADER_LENGTH} is {header!r}: no length within the body")
        body, behind = body[: int(header)], body[int(header) :]
    content = parsed(body)
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, f"inputs must be an array of one tensor, {INPUT!r}")
    entry = inputs[0]
    if entry.get("name") != INPUT:
        raise Refused(400, f"the input's name must be {INPUT!r}")
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        if behind:
            raise Refused(400, "there are bytes behind the JSON, and no binary_data_size")
        return content, tensors.read(entry, None)
    if type(size) is not int or size != len(behind) or "data" in entry:
        raise Refused(
            400, f"binary_data_size is {size!r}, and {len(behind)} bytes stand behind the JSON"
        )
    return content, tensors.read(entry, behind)


def _binary_output(content: dict[str, Any]) -> bool:
    """Whether the answer is wanted behind the JSON; raises Refused for an unknown output."""
    wanted = _parameters(content).get("binary_data_output") is True
    outputs = content.get("outputs")
    if outputs in (None, []):
        return wanted
    if not isinstance(outputs, list) or len(outputs) != 1 or not isinstance(outputs[0], dict):
        raise Refused(400, f"outputs must be an array of one entry, {OUTPUT!r}")
    if outputs[0].get("name") != OUTPUT:
        raise Refused(400, f"the output's name must be {OUTPUT!r}")
    return _parameters(outputs[0]).get("binary_data", wanted) is True


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refused(400, f"parameters must be an object, and is {kind(parameters)}")
    for name in _UNSUPPORTED:
        if name in parameters:
            raise Refused(400, f"the parameter {name} is not supported here")
    return parameters


def _written(
    content: dict[str, Any], served: Served, tensor: Tensor, answers: list[str], binary: bool
) -> Response:
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "BYTES", "shape": list(tensor.shape)}
    body: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if isinstance(content.get("id"), str):
        body["id"] = content["id"]
    body["outputs"] = [output]
    if not binary:
        output["data"] = answers
        return _json(body)
    packed = tensors.pack(answers)
    output["parameters"] = {"binary_data_size": len(packed)}
    head = json.dumps(body).encode()
    return Response(
        head + packed,
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )


def _json(content: dict[str, Any], status: int = 200) -> Response:
    # Not JSONResponse: a message may repeat what UTF-8 cannot hold; json.dumps escapes it.
    return Response(json.dumps(content), status, media_type="application/json")


def _failed(problem: Refused | InvalidEquation | ServingProblem) -> Response:
    status = 400 if isinstance(problem, InvalidEquation) else problem.status
    response = _json({"error": str(problem)}, status)
    if isinstance(problem, ServingProblem):
        response.headers.update(problem.headers)
    return response
