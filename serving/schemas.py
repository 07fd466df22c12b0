"""What goes over the wire."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class Accuracy(BaseModel):
    """What checking found of a version since it was loaded, in this process."""

    version: str
    checked: int = Field(description="Answers compared with the exact one.")
    wrong: int
    failed: int = Field(description="Questions on which the model raised.")
    unchecked: int = Field(description="Answers not checked, because too many were waiting.")
    hallucinations: int
    infinite_generation: int
    out_of_range: int
    error_rate: float | None
    call_ms: float | None = Field(description="Median of the latest calls of the model.")
    equation_ms: float | None = Field(description="Mean of an equation in these calls.")


class Drifted(BaseModel):
    """The latest inputs against the training data."""

    reference: str = Field(description="What is compared with.")
    inputs: int = Field(description="How many inputs were counted.")
    psi: dict[str, float] = Field(description="Population stability index by feature.")


class CandidateHealth(BaseModel):
    """The second version: its true error rate and latency beside Production's."""

    model_config = ConfigDict(protected_namespaces=())

    model_uri: str
    mode: Literal["shadow", "canary"]
    share: float = Field(description="Of the questions: answered (canary) or copied (shadow).")
    model_version: str | None = None
    bundle_sha256: str | None = None
    registry: str
    reason: str | None = Field(default=None, description="Why it is not tried.")
    accuracy: Accuracy | None = None
    not_copied: int = Field(description="Questions not copied, because too many were waiting.")
    production_call_ms: float | None = Field(
        default=None, description="Production's calls on the same questions in the same thread."
    )


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


class Unavailable(BaseModel):
    """The body of a 503."""

    detail: str
