"""What /docs says of the Open Inference Protocol's routes, whose bodies are read by hand."""

from typing import Any

_ERROR = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}},
        }
    }
}


def _errors(**descriptions: str) -> dict[str, Any]:
    return {
        name.removeprefix("s"): {"description": text, "content": _ERROR}
        for name, text in descriptions.items()
    }


def _json(example: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


_ABSENT = {
    "s404": "No model of this name or version is served.",
    "s503": "No model is loaded, or too many requests wait.",
}
METADATA: dict[str, Any] = {
    "responses": {
        "200": _json(
            {
                "name": "arithmetic-lm",
                "versions": ["3"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "equation", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": "answer", "datatype": "BYTES", "shape": [-1]}],
            },
            "Names, types and shapes.",
        ),
        **_errors(**_ABSENT),
    }
}
READY: dict[str, Any] = {
    "responses": {
        "200": _json({"name": "arithmetic-lm", "ready": True}, "It is loaded."),
        **_errors(**_ABSENT),
    }
}
_TENSOR = {"name": "equation", "datatype": "BYTES", "shape": [2], "data": ["951+11=", "7-12="]}
INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["name", "datatype", "shape", "data"],
                                "properties": {
                                    "name": {"const": "equation"},
                                    "datatype": {"const": "BYTES"},
                                    "shape": {
                                        "type": "array",
                                        "items": {"type": "integer", "minimum": 0},
                                    },
                                    "data": {"type": "array"},
                                    "parameters": {"type": "object"},
                                },
                            },
                        },
                        "outputs": {"type": "array", "items": {"type": "object"}},
                    },
                },
                "example": {"inputs": [_TENSOR]},
            }
        },
    },
    "responses": {
        "200": _json(
            {
                "model_name": "arithmetic-lm",
                "model_version": "3",
                "outputs": [
                    {"name": "answer", "datatype": "BYTES", "shape": [2], "data": ["962", "-5"]}
                ],
            },
            "The answers, in the shape of the equations.",
        ),
        **_errors(
            s400="The request breaks the protocol, or an equation is refused.",
            **_ABSENT,
            s415="The body is compressed.",
            s429="Over the rate limit; see Retry-After.",
            s500="The model failed on an equation.",
            s504="No answer before the deadline.",
        ),
    },
}
