"""What /health says of answers, inputs and a candidate."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
