"""Settings of following the registry, checking answers and trying candidates.

Fields of `serving.settings.Settings`: each is the environment variable of its name, in capitals.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings


def model_uri(value: str) -> str:
    """A model URI that names a version; raises ValueError."""
    if not re.fullmatch(r"models:/[^/@:]+(@[^/@]+|/[0-9]+)", value):
        raise ValueError("write models:/arithmetic-lm@Production or models:/arithmetic-lm/3")
    return value


class FollowingSettings(BaseSettings):
    """Attributes:
    watch_seconds: between questions to the registry which version the alias means.
    registry_timeout_seconds: longest wait for each piece of its answer.
    start_from_disk: with the registry down, start from the version that passed here last.
    check_limit: most answers that wait to be checked; what is over is counted as unchecked.
    hard_cases, hard_cases_limit: file of wrongly answered equations (in model_cache if not set),
        and its most lines.
    error_rate_limit: share of wrong answers above which a version is taken out of service; 1 never
        does it.
    error_rate_minimum: different questions, at least, before a version is judged so.
    model_uri_candidate: a second version to try beside it; none if empty.
    candidate_mode: `shadow` copies questions to it, `canary` lets it answer.
    candidate_share: of the questions; not set, all are copied or one in twenty answered.
    operator_token, operator_username, operator_password: with these, the alias is rolled back when
        a version is taken out of service. The service's own access may be read-only.
    """

    watch_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    registry_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    start_from_disk: bool = True
    check_limit: Annotated[int, Field(ge=1024, le=10_000_000)] = 20_000
    hard_cases: Path | None = None
    hard_cases_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    error_rate_limit: Annotated[float, Field(ge=0, le=1)] = 0.01
    error_rate_minimum: Annotated[int, Field(ge=1, le=1000)] = 200
    model_uri_candidate: str = ""
    candidate_mode: Literal["shadow", "canary"] = "shadow"
    candidate_share: Annotated[float, Field(gt=0, le=1)] | None = None
    operator_token: SecretStr = SecretStr("")
    operator_username: str = ""
    operator_password: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")

    @field_validator("model_uri_candidate")
    @classmethod
    def _names_a_version_or_nothing(cls, value: str) -> str:
        return model_uri(value) if value else value

    @field_validator("operator_password")
    @classmethod
    def _goes_with_a_name(cls, value: SecretStr, others: ValidationInfo) -> SecretStr:
        if bool(value.get_secret_value()) != bool(others.data.get("operator_username")):
            raise ValueError("give OPERATOR_USERNAME and OPERATOR_PASSWORD both, or neither")
        return value
