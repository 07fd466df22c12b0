"""The environment as typed settings; a bad one stops the service before it listens."""

import ipaddress
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from arithmetic.errors import Problem
from registry import signature
from registry.errors import UnusableKey, shown
from serving.following import FollowingSettings, model_uri


class InvalidSettings(Problem):
    """An environment variable that the service cannot work with."""


class Settings(FollowingSettings):
    """Each field is the environment variable of its name, in capitals; more in `FollowingSettings`.

    Attributes:
        model_uri: which version to serve, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        mlflow_tracking_uri: http(s) address of the MLflow server that has it.
        model_cache: folder for downloaded bundles.
        host, port: where to listen.
        workers: processes that answer, one for each core that the service may use.
        pull_retry_seconds: pause between attempts while no model could be loaded.
        largest_batch: most equations in one call of the model.
        queue_limit: most equations that wait for a call, for each operation; past it, 503 at once.
        deadline_seconds: longest time from a question to its answer; past it, 504.
        max_body_bytes: of a request; past it, 413.
        request_seconds: within which a request must have arrived whole; past it, 408.
        max_connections: open at once; past it, 503 and closed.
        keep_alive_seconds: how long an idle connection is kept.
        grace_seconds: from SIGTERM to the end, at most; less than whoever sends it waits.
        drain_seconds: after SIGTERM, how long new connections are still taken while /readyz says
            no; a load balancer needs a while to notice.
        trusted_proxies: addresses, with commas, whose X-Forwarded-For is believed.
        log_format: text or json, for everything that is logged.
        log_sample: share of the requests that get a line in the log, 0 to 1; failures always do.
        api_keys: NAME=SHA-256 of the key in hexadecimal, several with commas; empty asks for none.
            `python -m serving.auth NAME` makes one.
        api_keys_file: the same, a line each.
        rate_limit: requests a second of one key or address (of /predict/batch, equations); 0 is
            no limit.
        rate_burst: how many may come at once.
        trusted_key: PEM file of the public key by which a version must be signed; any if not set.
    """

    # An empty variable is one that is not set, as in compose.yaml's `HARD_CASES=`.
    model_config = SettingsConfigDict(frozen=True, protected_namespaces=(), env_ignore_empty=True)

    model_uri: str = "models:/arithmetic-lm@Production"
    mlflow_tracking_uri: str
    model_cache: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "arithmetic-lm-models"
    )
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    pull_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    largest_batch: Annotated[int, Field(ge=2, le=1024)] = 64
    queue_limit: Annotated[int, Field(ge=1024, le=1_000_000)] = 4096
    deadline_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    request_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 75
    grace_seconds: Annotated[float, Field(gt=0, le=600)] = 8.0
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 0.5
    trusted_proxies: str = ""
    log_format: Literal["text", "json"] = "text"
    log_sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    api_keys: str = ""
    api_keys_file: Path | None = None
    rate_limit: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    trusted_key: Path | None = None

    @property
    def hard_cases_file(self) -> Path:
        """Where hard cases are kept."""
        return self.hard_cases or self.model_cache / "hard-cases.jsonl"

    @field_validator("model_uri")
    @classmethod
    def _names_a_version(cls, value: str) -> str:
        return model_uri(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        addresses = [one for part in value.split(",") if (one := part.strip())]
        for one in addresses if addresses != ["*"] else []:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(f"{one!r} is no address; write 10.0.0.1,10.1.0.0/16") from error
        return ",".join(addresses)

    @field_validator("trusted_key")
    @classmethod
    def _is_a_key(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                signature.load_key(value)
            except UnusableKey as problem:
                raise ValueError(str(problem)) from problem
        return value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _is_a_server(cls, value: str) -> str:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as error:
            raise ValueError("this is no address; correct it") from error
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
    except FileNotFoundError as error:  # of `tempfile`, for the default of MODEL_CACHE
        raise InvalidSettings(
            "there is no folder for temporary files that can be written; mount one at /tmp, or set "
            "TMPDIR"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        if first["type"] == "missing":
            raise InvalidSettings(
                f"{name} is not set; give it the address of an MLflow server, like "
                "http://127.0.0.1:5000"
            ) from error
        reason = first["msg"].removeprefix("Value error, ")
        given = "" if "PASSWORD" in name else f" is {shown(first['input'])!r}"
        raise InvalidSettings(f"{name}{given}: {reason}") from error
