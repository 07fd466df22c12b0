"""Define the bodies of requests and responses."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_EQUATIONS = 1024  # in one request
EXAMPLE = "951+11="

EquationText = Annotated[str, Field(max_length=64)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PredictRequest(_Request):
    """Ask one question."""

    equation: EquationText = Field(
        description="Two numbers with an operator between them and a final `=`.",
        examples=[EXAMPLE],
    )
    steps: bool = Field(default=False, description="Return the steps that the model wrote.")


class PredictResponse(BaseModel):
    """Answer one question; `predicted_answer` is the model's own text, right or wrong."""

    equation: str = Field(description="The question as it was asked.", examples=[EXAMPLE])
    predicted_answer: str = Field(examples=["962"])
    full_output: str = Field(description="The question with its answer.", examples=["951+11=962"])
    latency_ms: float = Field(description="Milliseconds from the request to the answer.")
    model_version: str = Field(description="The version that answered.", examples=["3"])
    steps: list[str] | None = Field(default=None, description="The model's steps, where asked for.")


class ExplainRequest(_Request):
    """Ask how one question is answered."""

    equation: EquationText = Field(examples=[EXAMPLE])


class TokenProbability(BaseModel):
    """Hold a token and its probability."""

    token: str = Field(description="A character, or END.", examples=["0"])
    probability: float


class ExplainedToken(TokenProbability):
    """Describe one generated token."""

    name: str = Field(description="The token's place in the format.", examples=["carry, ones"])
    explanation: str = Field(examples=["ones: 1 + 1 = 2, carry 0"])
    runners_up: list[TokenProbability] = Field(description="The three next most probable tokens.")
    attention: list[list[list[float]]] = Field(
        description="By layer, head and earlier position: how much of its attention it gets."
    )


class ExplainResponse(BaseModel):
    """Show an answer token by token; operands and results are written ones first."""

    equation: str = Field(examples=[EXAMPLE])
    prompt: list[str] = Field(description="The question's tokens.")
    scratchpad_length: int = Field(description="Tokens before the answer's first one.")
    tokens: list[ExplainedToken] = Field(description="The generated tokens.")
    predicted_answer: str = Field(examples=["962"])
    exact_answer: str = Field(description="The answer by exact arithmetic.", examples=["962"])
    model_version: str = Field(examples=["3"])


class BatchRequest(_Request):
    """Ask several questions."""

    equations: list[EquationText] = Field(
        min_length=1, max_length=MAX_EQUATIONS, examples=[[EXAMPLE, "7-12="]]
    )


class BatchResponse(BaseModel):
    """Answer several questions by one version, in their order."""

    predicted_answers: list[str] = Field(examples=[["962", "-5"]])
    latency_ms: float = Field(description="Milliseconds from the request to the answers.")
    model_version: str = Field(description="The version that answered.", examples=["3"])


class Readiness(BaseModel):
    """Report whether requests should be sent here."""

    ready: bool
    reason: str | None = None


class Accuracy(BaseModel):
    """Report the checked answers of a version since it was loaded."""

    checked: int = Field(default=0, description="Answers compared with the exact one.")
    wrong: int = 0
    failed: int = Field(default=0, description="Equations on which the model raised.")
    unchecked: int = Field(default=0, description="Answers not checked: too many were waiting.")
    hallucination: int = Field(default=0, description="Answers that are not integers.")
    infinite_generation: int = Field(default=0, description="Answers without an end.")
    out_of_range: int = Field(default=0, description="Integers that no equation has as answer.")
    error_rate: float | None = Field(description="Wrong answers over checked ones.")


class Health(BaseModel):
    """Report what is served; `status` is `ok` only while a model is loaded."""

    status: Literal["ok", "loading", "unavailable"]
    model_loaded: bool
    model_uri: str
    model_name: str | None = None
    model_version: str | None = None
    model_digest: str | None = None
    operations: list[str] | None = None
    max_operand: int | None = None
    source: Literal["registry", "last_known_good", "directory"] | None = Field(
        default=None, description="`last_known_good`: an earlier version, not the registry's."
    )
    registry: str = Field(description="The registry's state and since when.")
    compare_url: str | None = Field(default=None, description="What POST /compare asks, if set.")
    reason: str | None = Field(
        default=None, description="Why no model is served, or another than the registry names."
    )
    rejected: dict[str, str] = Field(
        default={}, description="Versions not served although they are registered, and why."
    )
    accuracy: Accuracy | None = None
    drift: dict[str, float] | None = Field(
        default=None, description="Population stability index of the latest inputs, by feature."
    )


class ErrorResponse(BaseModel):
    """Describe a failed request."""

    detail: str
