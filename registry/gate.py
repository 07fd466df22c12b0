"""Temporary stub."""
from pydantic import BaseModel, ConfigDict, Field
class Gate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    max_errors: int = Field(ge=0)
    min_margin: float | None = None
    max_error_rate: float | None = Field(default=None, gt=0, le=1)
