"""The environment as typed settings; a bad one stops the service before it listens."""

import re
import tempfile
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import Field, ValidationError, field_validator
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
        trusted_key: PEM file of the public key by which a version must be signed; any if not set.
    """

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    model_uri: str = "models:/arithmetic-lm@Production"
    mlflow_tracking_uri: str
    model_cache: Path = Path(tempfile.gettempdir()) / "arithmetic-lm-models"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    pull_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    largest_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    trusted_key: Path | None = None

    @field_validator("model_uri")
    @classmethod
    def _names_a_version(cls, value: str) -> str:
        if not re.fullmatch(r"models:/[^/@:]+(@[^/@]+|/[0-9]+)", value):
            raise ValueError("write models:/arithmetic-lm@Production or models:/arithmetic-lm/3")
        return value

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
