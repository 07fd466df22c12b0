"""params.yaml as typed, frozen values, validated as a whole before any stage works.

One section a stage plus the model's. Every field says what it means; a constraint that one field
can break stands at the field, one that needs several stands in `Params._possible`.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from arithmetic.config import WIDEST_BEAM
from arithmetic.errors import InvalidParams, reported
from arithmetic.gate import Gate
from arithmetic.grammar import OPERATIONS, Grammar

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Generate(Section):
    """The domain and the data drawn from it.

    Attributes:
        seed: of the sampling.
        operations: operators of the domain.
        max_operand: operands go from 0 to this.
        train_size, validation_size, test_size: equations in each split.
        cascade_share: of + and -, share of digit pairs on the edge of a carry or borrow (9+0,
            8+1, …; 4-4).
        zeros_and_nines_share: of + and -, share of digit pairs heavy in 0 and 9.
        cells_share: share drawn so that every token of the written steps sees each combination of
            what it looks at equally often.
    """

    seed: Seed
    operations: list[str]
    max_operand: Annotated[int, Field(ge=1, le=999_999_999)]
    train_size: Count
    validation_size: Count
    test_size: Count
    cascade_share: Share
    zeros_and_nines_share: Share
    cells_share: Share

    @property
    def grammar(self) -> Grammar:
        return Grammar(tuple(self.operations), self.max_operand)


class Model(Section):
    """The model's shape.

    Attributes:
        d_model: width of the residual stream.
        layers, heads: of the Transformer.
        mlp_ratio: hidden width of the MLP over d_model.
        attention: `content` (queries meet keys) or `position` (a learned table of positions).
    """

    d_model: Count
    layers: Count
    heads: Count
    mlp_ratio: Count
    attention: Literal["content", "position"]


class Train(Section):
    """The optimisation.

    Attributes:
        seed: of initialisation and batch order.
        batch_sizes: equations a step, of each operation in the order of generate.operations.
        shards: parts of a batch that are computed apart and summed in a fixed order; up to so many
            cores are used, and their number changes nothing in the result.
        warmup_steps, flat_steps, decay_steps: learning-rate schedule; their sum is the training.
        muon_learning_rate, muon_momentum: for the matrices inside the blocks.
        adamw_learning_rate: for embeddings, norms, biases and head.
        validate_every: steps between validations.
        early_stopping_patience: stop after so many validations without a better validation loss.
    """

    seed: Seed
    batch_sizes: list[Count]
    shards: Annotated[int, Field(ge=1, le=8)]
    warmup_steps: NotNegative
    flat_steps: NotNegative
    decay_steps: NotNegative
    muon_learning_rate: Rate
    muon_momentum: Annotated[float, Field(ge=0, lt=1)]
    adamw_learning_rate: Rate
    validate_every: Count
    early_stopping_patience: Count

    @property
    def steps(self) -> int:
        return self.warmup_steps + self.flat_steps + self.decay_steps


class Export(Section):
    """The serving graph.

    Attributes:
        opset: version of the ONNX operator set.
    """

    opset: Annotated[int, Field(ge=14, le=20)]


class Evaluate(Section):
    """The proof.

    Attributes:
        seed: of the random samples.
        lowest_margins: equations of smallest margin that are really decoded.
        random_sample: equations that are really decoded besides.
        sampled_equations: of a domain too large to list, random equations that are certified
            besides the edge cases.
        beam_width: above 1, the test split is also decoded by a beam search of this width.
    """

    seed: Seed
    lowest_margins: NotNegative
    random_sample: NotNegative
    sampled_equations: Count
    beam_width: Annotated[int, Field(ge=1, le=WIDEST_BEAM)]


class Params(Section):
    """All of params.yaml."""

    generate: Generate
    model: Model
    train: Train
    export: Export
    evaluate: Evaluate
    promote: Gate

    @model_validator(mode="after")
    def _possible(self) -> "Params":
        generate, model, train = self.generate, self.model, self.train
        for operation in generate.operations:
            if operation not in OPERATIONS:
                raise ValueError(
                    f"generate.operations names {operation!r}; choose from {' '.join(OPERATIONS)}"
                )
        if not generate.operations or len(set(generate.operations)) != len(generate.operations):
            raise ValueError("generate.operations must name each operation once, and at least one")
        if generate.cascade_share + generate.zeros_and_nines_share > 1:
            raise ValueError(
                "generate.cascade_share and generate.zeros_and_nines_share add up to more than 1; "
                "lower one of them"
            )
        if model.d_model % model.heads:
            raise ValueError(
                f"model.d_model ({model.d_model}) is not a multiple of model.heads "
                f"({model.heads}); change one of them"
            )
        if train.steps < 1:
            raise ValueError(
                "train.warmup_steps, train.flat_steps and train.decay_steps add up to 0; "
                "give at least one step"
            )
        operations = len(generate.operations)
        if len(train.batch_sizes) != operations:
            raise ValueError(
                f"train.batch_sizes has {len(train.batch_sizes)} sizes for {operations} "
                "operations; give one for each of generate.operations"
            )
        largest, rows = max(train.batch_sizes), generate.train_size // operations
        if largest > rows:
            raise ValueError(
                f"train.batch_sizes has {largest}, more than the {rows} training equations of an "
                "operation; lower it or raise generate.train_size"
            )
        if min(train.batch_sizes) < train.shards:
            raise ValueError(
                f"train.batch_sizes has {min(train.batch_sizes)}, fewer than train.shards "
                f"({train.shards}); raise it or use fewer shards"
            )
        for split in ("train_size", "validation_size", "test_size"):
            if getattr(generate, split) < operations:
                raise ValueError(
                    f"generate.{split} is {getattr(generate, split)} for {operations} operations; "
                    "give at least one equation of each"
                )
        asked = (generate.train_size + generate.validation_size + generate.test_size) / operations
        smallest = min(generate.grammar.count(operation) for operation in generate.operations)
        if asked > smallest:
            raise ValueError(
                f"generate asks for {asked:,.0f} equations of each operation, and operands up to "
                f"{generate.max_operand} give {smallest:,}; lower the sizes or raise "
                "generate.max_operand"
            )
        return self


def load(path: Path) -> Params:
    """Read and validate `path`.

    Raises:
        InvalidParams: one sentence naming the key and the mend.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidParams(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InvalidParams(f"{path} is not UTF-8; save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise InvalidParams(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return validate(content, str(path))


def validate(content: Any, source: str = "params.yaml") -> Params:
    """Params from parsed YAML; raises InvalidParams."""
    if not isinstance(content, dict):
        raise InvalidParams(f"{source} must hold sections (generate, model, train, …)")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # A misspelt key is both unknown and missing: the unknown one says what to mend.
        first = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")[0]
        raise InvalidParams(f"{source}: {_sentence(first)}") from error


def _sentence(error: ErrorDetails) -> str:
    """One pydantic error as cause and mend."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *section, name = error["loc"]
        known = _keys(section)
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    if error["type"] == "missing":
        return f"key {key} is missing; add it"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{key} is {error['input']!r}, but {message}; change it"


def _keys(section: list[int | str]) -> list[str]:
    model: Any = Params
    for name in section:
        model = model.model_fields[name].annotation
    return list(model.model_fields)


def main() -> None:
    """Validate params.yaml: stages that DVC takes from its cache do not, so recording asks here."""
    with reported():
        load(Path("params.yaml"))


if __name__ == "__main__":
    main()
