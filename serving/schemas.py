"""What goes over the wire."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.reports import Accuracy, CandidateHealth, Drifted

# Most equations in a call of POST /predict/batch.
LARGEST_CALL = 1024


class Question(BaseModel):
    """The body of POST /predict. What an equation may be is the model's grammar's business."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"equation": "951+11="}]}
    )

    equation: str = Field(
        max_length=64, description="Two numbers with an operator between them and a final `=`."
    )
    show_work: bool = Field(
        default=False, description="Return the steps that the model wrote on its way."
    )
    beam_width: int = Field(
        default=1, ge=1, le=8, description="1 decodes greedily, more keeps that many beams."
    )


class Prediction(BaseModel):
    """The model's answer. `predicted_answer` is its own words, right or wrong."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "equation": "951+11=",
                    "predicted_answer": "962",
                    "full_output": "951+11=962",
                    "latency_ms": 0.41,
                    "model_version": "3",
                }
            ]
        },
    )

    equation: str = Field(description="The question as it was asked.")
    predicted_answer: str
    full_output: str = Field(description="The question with its answer.")
    latency_ms: float = Field(description="From the parsed request to the answer, milliseconds.")
    model_version: str = Field(description="The registered version that answered.")
    work: list[str] | None = Field(
        default=None, description="The model's written steps, where they were asked for."
    )


class Questions(BaseModel):
    """The body of POST /predict/batch."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"equations": ["951+11=", "7-12="]}]},
    )

    equations: list[Annotated[str, Field(max_length=64)]] = Field(
        min_length=1, max_length=LARGEST_CALL, description="Each as in POST /predict."
    )
    beam_width: int = Field(default=1, ge=1, le=8)


class Predictions(BaseModel):
    """The answers of one version, in the order of the questions."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {"predicted_answers": ["962", "-5"], "latency_ms": 0.6, "model_version": "3"}
            ]
        },
    )

    predicted_answers: list[str]
    latency_ms: float = Field(description="From the parsed request to the answers, milliseconds.")
    model_version: str = Field(description="The registered version that answered them all.")


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    ready: bool
    reason: str | None = None


class Health(BaseModel):
    """What is being served. `status` is `ok` only while a model is loaded."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ok", "loading", "unavailable"]
    model_loaded: bool
    model_uri: str
    model_name: str | None = None
    model_version: str | None = None
    bundle_sha256: str | None = None
    operations: list[str] | None = None
    max_operand: int | None = None
    source: str | None = Field(
        default=None, description="`registry`, or `disk`: the last verified version from before."
    )
    registry: str = Field(description="How the registry answers, and since when.")
    reason: str | None = Field(
        default=None, description="Why no model is loaded, or not the one that the registry names."
    )
    refused: dict[str, str] = Field(
        default={}, description="Versions that are not loaded until the alias has moved, and why."
    )
    accuracy: Accuracy | None = None
    drift: Drifted | None = None
    candidate: CandidateHealth | None = None


class Detail(BaseModel):
    """The body of every error but 422."""

    detail: str


class Problems:
    """What the predicting routes may answer besides 200 and 422, for /docs."""

    responses: ClassVar[dict[int | str, dict[str, Any]]] = {
        400: {"model": Detail, "description": "The body is no text that JSON could be in."},
        401: {"model": Detail, "description": "An API key is needed (if keys are configured)."},
        408: {"model": Detail, "description": "The request did not arrive in time."},
        413: {"model": Detail, "description": "The body is too large."},
        415: {"model": Detail, "description": "The body must be application/json."},
        429: {"model": Detail, "description": "Over the rate limit; see Retry-After."},
        431: {"model": Detail, "description": "The head of the request is too large."},
        500: {"model": Detail, "description": "The model failed on this very equation."},
        503: {"model": Detail, "description": "No model yet, or the queue is full (Retry-After)."},
        504: {"model": Detail, "description": "No answer before the deadline."},
    }
