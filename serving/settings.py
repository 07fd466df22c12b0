"""The environment as typed settings; a bad one stops the service before it listens."""

import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from arithmetic.errors import Problem


class InvalidSettings(Problem):
    """An environment variable that the service cannot work with."""


class Settings(BaseSettings):
    """Each field is the environment variable of its name, in capitals.

    Attributes:
        model_uri: which version to serve, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        mlflow_tracking_uri: http(s) address of the MLflow server that has it.
        model_cache: folder for downloaded bundles.
        host, port: where to listen.
        pull_retry_seconds: pause between attempts while no model could be loaded.
        largest_batch: most equations in one call of the model.
        queue_limit: most equations that wait for a call, for each operation; past it, 503 at once.
        deadline_seconds: longest time from a question to its answer; past it, 504.
        watch_seconds: between questions to the registry which version the alias means.
        registry_timeout_seconds: longest wait for each piece of its answer.
        start_from_disk: with the registry down, start from the version that passed here last.
        check_limit: most answers that wait to be checked; what is over is counted as unchecked.
        hard_cases, hard_cases_limit: file of wrongly answered equations (in model_cache if not
            set), and its most lines.
        error_rate_limit: share of wrong answers above which a version is taken out of service; 1
            never does it.
        error_rate_minimum: different questions, at least, before a version is judged so.
        model_uri_candidate: a second version to try beside it; none if empty.
        candidate_mode: `shadow` copies questions to it, `canary` lets it answer.
        candidate_share: of the questions; not set, all are copied or one in twenty answered.
        operator_token, operator_username, operator_password: with these, the alias is rolled back
            when a version is taken out of service. The service's own access may be read-only.
    """

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    model_uri: str = "models:/arithmetic-lm@Production"
    mlflow_tracking_uri: str
    model_cache: Path = Path(tempfile.gettempdir()) / "arithmetic-lm-models"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    pull_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    largest_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    queue_limit: Annotated[int, Field(ge=1024, le=1_000_000)] = 4096
    deadline_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
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
    operator_password: SecretStr = SecretStr("")

    @field_validator("model_uri")
    @classmethod
    def _names_a_version(cls, value: str) -> str:
        if not re.fullmatch(r"models:/[^/@:]+(@[^/@]+|/[0-9]+)", value):
            raise ValueError("write models:/arithmetic-lm@Production or models:/arithmetic-lm/3")
        return value

    @field_validator("model_uri_candidate")
    @classmethod
    def _names_a_version_or_nothing(cls, value: str) -> str:
        return cls._names_a_version(value) if value else value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _is_a_server(cls, value: str) -> str:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as error:
            raise ValueError(f"this is no address ({error})") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                "the service talks to an MLflow server, so give an http:// address "
                "(`make serve` starts one over the local store)"
            )
        return value


def from_environment() -> Settings:
    """Settings from the environment; raises InvalidSettings naming the variable and the mend."""
    try:
        return Settings()  # type: ignore[call-arg]  # the environment fills it
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        if first["type"] == "missing":
            raise InvalidSettings(
                f"{name} is not set; give it the address of an MLflow server, like "
                "http://127.0.0.1:5000"
            ) from error
        reason = first["msg"].removeprefix("Value error, ")
        raise InvalidSettings(f"{name} is {first['input']!r}: {reason}") from error
