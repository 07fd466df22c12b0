"""Define a model directory: its files, its config and its digest.

    config.json                  the grammar and the model's shape
    model.safetensors            the parameters
    input_profile.json           the distribution of the training inputs
    decoders/add_subtract.onnx   a greedy decoder for each sequence format

No pickle. The digest covers the bytes of all files, so a registered version, a directory on disk
and a running service can be compared by one line of text. Serving imports this: no torch here.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from arithmetic.errors import InvalidModelError
from arithmetic.formats import get_formats
from arithmetic.grammar import OPERATIONS, Grammar

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INPUT_PROFILE = "input_profile.json"
DECODERS = "decoders"
REPRODUCE = "run `dvc repro` to write it again"

Count = Annotated[int, Field(ge=1)]


def _check_operations(operations: list[str]) -> list[str]:
    names = set(operations)
    if not names or len(names) != len(operations) or not names <= OPERATIONS.keys():
        raise ValueError(f"name at least one of {' '.join(OPERATIONS)}, and each once")
    return operations


Operations = Annotated[list[str], AfterValidator(_check_operations)]


class StrictModel(BaseModel):
    """Forbid unknown keys, conversions and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelShape(StrictModel):
    """Describe the model's shape.

    Attributes:
        d_model: width of the residual stream.
        layers, heads: of the Transformer.
        mlp_ratio: hidden width of the MLP over d_model.
        attention: `dot_product`, or `positional` (a learned table of positions).
    """

    d_model: Count
    layers: Count
    heads: Count
    mlp_ratio: Count
    attention: Literal["dot_product", "positional"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(
                f"model.d_model ({self.d_model}) is not a multiple of model.heads ({self.heads}); "
                "change one of them"
            )
        return self


class SequenceSizes(StrictModel):
    """Describe what the model reads.

    Attributes:
        vocabulary_size: number of token ids.
        sequence_lengths: the most tokens that are read, for each format of the grammar, in order.
    """

    vocabulary_size: Count
    sequence_lengths: list[Count]


class ModelConfig(ModelShape, SequenceSizes):
    """Hold everything that a Transformer is built from."""


class GrammarConfig(StrictModel):
    """Hold the domain: the operators, and operands from 0 to `max_operand`."""

    operations: Operations
    max_operand: Count


class ArtifactConfig(StrictModel):
    """Hold config.json: which equations a model answers, and its shape.

    The service checks a request by this grammar, never by params.yaml.
    """

    format: Literal[3] = 3
    grammar: GrammarConfig
    model: ModelConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.model.sequence_lengths) != len(get_formats(self.grammar.operations)):
            raise ValueError("it does not have one sequence length for each format")
        return self

    def get_grammar(self) -> Grammar:
        """Return the grammar as the code uses it."""
        return Grammar(tuple(self.grammar.operations), self.grammar.max_operand)


def write_config(path: Path, config: ArtifactConfig) -> None:
    """Write config.json, the same bytes for the same config."""
    path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_config(directory: Path) -> ArtifactConfig:
    """Read config.json of a model directory.

    Raises:
        InvalidModelError: it is missing, not JSON, of another format or inconsistent.
    """
    path = directory / CONFIG
    try:
        return ArtifactConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidModelError(f"cannot read {path}: {error.strerror}", REPRODUCE) from error
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            reason = f"{'.'.join(map(str, first['loc']))}: {reason}"
        raise InvalidModelError(f"{path} is not a model's config: {reason}", REPRODUCE) from error


def decoder_path(format_name: str) -> str:
    """Return the path of a format's decoder within the model directory."""
    return f"{DECODERS}/{format_name}.onnx"


def model_files(config: ArtifactConfig) -> tuple[str, ...]:
    """Return the paths of a complete model directory, sorted."""
    decoders = [decoder_path(fmt.name) for fmt in get_formats(config.grammar.operations)]
    return tuple(sorted([CONFIG, WEIGHTS, INPUT_PROFILE, *decoders]))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; raise InvalidModelError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidModelError(f"cannot read {path}: {error.strerror}", REPRODUCE) from error


def digest(directory: Path) -> str:
    """Return the SHA-256 over names and digests of all files; raise InvalidModelError."""
    files = model_files(load_config(directory))
    lines = [f"{name} {file_digest(directory / name)}\n" for name in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
