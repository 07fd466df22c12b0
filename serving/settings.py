"""Read the service's settings from environment variables.

Each field of `Settings` is the variable of its name in capitals. An unusable value stops the
service before it listens. MLflow's own variables (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN, …)
are read by MLflow.
"""

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from arithmetic.errors import UserError

Seconds = Annotated[float, Field(gt=0, le=3600)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class InvalidSettingsError(UserError):
    """Reject an environment variable or a directory that the service cannot use."""


class Settings(BaseSettings):
    """Hold the settings; the docstrings are their documentation (`Settings.model_fields`)."""

    # An empty variable counts as not set, as in compose.yaml's `API_KEYS=`.
    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, use_attribute_docstrings=True
    )

    model_uri: str = "models:/arithmetic-lm@Production"
    """Model to serve: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a model directory."""
    mlflow_tracking_uri: str = ""
    """MLflow server; empty: the local store of this repository."""
    model_cache: Path | None = None
    """Directory for downloaded models; empty: the user's cache directory."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    root_path: str = ""
    """Path prefix that a proxy in front strips, like `/api`."""
    cors_origins: str = ""
    """Origins whose pages may call the service, comma-separated, or `*`."""
    compare_url: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""
    """Address of a second service, whose answers the page at `/` shows beside this one's."""
    forwarded_allow_ips: str = ""
    """Addresses of proxies whose X-Forwarded headers are trusted."""
    api_keys: str = ""
    """`NAME=SHA256` entries, comma-separated; `python -m serving.auth NAME` makes one."""
    poll_seconds: Seconds = 1.0
    """Time between two looks at the registry and at the error rate."""
    max_batch_size: Annotated[int, Field(ge=2, le=1024)] = 64
    """Most equations in one call of the model."""
    queue_limit: Annotated[int, Field(ge=1024, le=1_000_000)] = 4096
    """Most equations that wait for each sequence format; beyond it, 503."""
    deadline_seconds: Seconds = 5.0
    """Longest time from a request to its answer; after it, 504."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    """Largest request body; beyond it, 413."""
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 75
    """How long an idle connection stays open."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 0.5
    """How long new connections are accepted after SIGTERM, while /readyz is 503 already."""
    grace_seconds: Seconds = 8.0
    """Longest time from SIGTERM to the exit; connections that are open then are cut."""
    check_queue: Annotated[int, Field(ge=1024, le=10_000_000)] = 20_000
    """Most answers that wait to be checked; the rest count as unchecked."""
    max_error_rate: Fraction = 0.01
    """Error rate over distinct questions above which a version is rejected; 1 rejects none."""
    min_questions: Annotated[int, Field(ge=1, le=1000)] = 200
    """Distinct questions that are needed before the error rate counts."""
    mispredictions: Path | None = None
    """JSON lines file of wrong answers; empty: in the model cache."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log."""
    log_sample: Fraction = 0.01
    """Fraction of the requests that are logged; server errors always are."""

    @field_validator("model_uri")
    @classmethod
    def _check_model_uri(cls, value: str) -> str:
        if ":/" in value and not re.fullmatch(r"models:/[^/@:]+(@[^/@]+|/[0-9]+)", value):
            raise ValueError("write models:/NAME@ALIAS, models:/NAME/VERSION or a directory")
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", value):
            raise ValueError("write a path like /api")
        return value.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Return whether MODEL_URI is a model directory, which needs no registry."""
        return not self.model_uri.startswith("models:/")

    @property
    def follows_alias(self) -> bool:
        """Return whether MODEL_URI can come to mean another version."""
        return not self.is_local and "@" in self.model_uri

    @property
    def cors_origin_list(self) -> list[str]:
        """Return the origins of CORS_ORIGINS."""
        return [origin for part in self.cors_origins.split(",") if (origin := part.strip())]


def load_settings() -> Settings:
    """Read the environment; raise InvalidSettingsError naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        message = f"{name} is {str(first['input'])[:200]!r}"
        raise InvalidSettingsError(message, reason[:1].lower() + reason[1:]) from error


def open_model_cache(settings: Settings) -> Path:
    """Create this service's private directory of downloaded models.

    Each model URI has its own, so two services on one machine do not share a state file.

    Raises:
        InvalidSettingsError: it cannot be created, or belongs to another user.
    """
    source = f"{settings.model_uri} {settings.mlflow_tracking_uri}"
    name = "-".join(re.findall(r"[A-Za-z0-9.]+", settings.model_uri.removeprefix("models:/")))
    root = settings.model_cache or user_cache_path("arithmetic-lm") / "models"
    directory = root / f"{name[-40:]}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    hint = "set MODEL_CACHE to a directory that only this user can write"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise InvalidSettingsError(f"{directory} is not a directory of this user", hint)
        directory.chmod(0o700)
    except OSError as error:
        raise InvalidSettingsError(f"cannot create {directory}: {error.strerror}", hint) from error
    return directory
