"""Read params.yaml as typed, frozen values, validated as a whole before any stage works.

One section a stage, plus the model's and the promotion gate's. A constraint on one field is
declared at the field, one on several fields in `_check` of their section or of `Params`.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from arithmetic.artifacts import Count, ModelShape, Operations, StrictModel
from arithmetic.errors import InvalidParamsError
from arithmetic.formats import SequenceFormat, get_formats
from arithmetic.grammar import Grammar
from registry.dvc_lock import read_yaml
from registry.gate import Gate

PARAMS = Path("params.yaml")

NonNegative = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=4)]  # at least one equation of each operation
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Generate(StrictModel):
    """Describe the domain and the data drawn from it.

    Attributes:
        seed: of the sampling.
        operations: operators of the domain.
        max_operand: operands go from 0 to this.
        train_size, validation_size, test_size: equations in each split.
        cascade_share: of + and -, share of digit pairs on the edge of a carry or borrow (9+0,
            8+1, …; 4-4).
        zeros_and_nines_share: of + and -, share of digit pairs heavy in 0 and 9.
        input_combinations_share: share drawn so that every token of the scratchpad gets each
            combination of the tokens that it depends on equally often.
        hard_case_copies: how often the training split repeats each equation of hard_cases.csv.
    """

    seed: Seed
    operations: Operations
    max_operand: Annotated[int, Field(ge=1, le=999_999_999)]
    train_size: Size
    validation_size: Size
    test_size: Size
    cascade_share: Share
    zeros_and_nines_share: Share
    input_combinations_share: Share
    hard_case_copies: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cascade_share + self.zeros_and_nines_share > 1:
            raise ValueError(
                "generate.cascade_share and generate.zeros_and_nines_share add up to more than 1; "
                "lower one of them"
            )
        return self

    @property
    def grammar(self) -> Grammar:
        """Return the domain."""
        return Grammar(tuple(self.operations), self.max_operand)

    @property
    def formats(self) -> tuple[SequenceFormat, ...]:
        """Return the sequence formats of the operations, in order."""
        return get_formats(self.operations)


class Train(StrictModel):
    """Describe the optimization.

    Attributes:
        seed: of initialization and batch order.
        batch_sizes: equations a step, for each sequence format in the order of
            generate.operations; + and - share one.
        warmup_steps, flat_steps, decay_steps: learning-rate schedule; their sum is the training.
        muon_learning_rate, muon_momentum: for the matrices inside the blocks.
        adamw_learning_rate: for embeddings, biases and head.
        weight_decay: of both, times the learning rate.
        validate_every: steps between validations.
        early_stopping_patience: validations without a better validation loss before stopping.
        stop_at_exact_match: validation exact match that ends the training; null for none.
    """

    seed: Seed
    batch_sizes: list[Annotated[int, Field(ge=2)]]
    warmup_steps: NonNegative
    flat_steps: NonNegative
    decay_steps: Count
    muon_learning_rate: Rate
    muon_momentum: Annotated[float, Field(ge=0, lt=1)]
    adamw_learning_rate: Rate
    weight_decay: Share
    validate_every: Count
    early_stopping_patience: Count
    stop_at_exact_match: Share | None

    @property
    def steps(self) -> int:
        """Return the number of steps without early stopping."""
        return self.warmup_steps + self.flat_steps + self.decay_steps


class Grpo(StrictModel):
    """Describe the reinforcement learning after the supervised training (`stages.grpo`).

    Attributes:
        steps: 0 for none.
        questions: equations asked a step.
        group_size: answers sampled to each.
        learning_rate_factor: of train's learning rates, at the peak.
        warmup_steps: to the peak; then the rate decays to 0.
        mistake_copies: how often each question that the supervised model gets wrong is added to the
            questions.
        kl_weight: of the divergence from the supervised model, in the loss.
        max_gradient_norm: longer gradients are scaled down to this.
    """

    steps: NonNegative
    questions: Count
    group_size: Annotated[int, Field(ge=2)]
    learning_rate_factor: Rate
    warmup_steps: Count
    mistake_copies: NonNegative
    kl_weight: Annotated[float, Field(ge=0)]
    max_gradient_norm: Annotated[float, Field(gt=0)]


class Export(StrictModel):
    """Describe the decoders.

    Attributes:
        opset: version of the ONNX operator set.
    """

    opset: Annotated[int, Field(ge=23, le=24)]


class Evaluate(StrictModel):
    """Describe the certification.

    Attributes:
        seed: of the random samples.
        lowest_margins: equations of smallest margin that are decoded token by token.
        random_sample: random equations that are decoded besides.
        sampled_equations: of a domain too large to list, random equations that are certified
            besides the edge cases.
        beam_width: above 1, the test split is also decoded by a beam search of this width.
    """

    seed: Seed
    lowest_margins: NonNegative
    random_sample: Count
    sampled_equations: Count
    beam_width: Annotated[int, Field(ge=1, le=8)]


class Params(StrictModel):
    """Hold all of params.yaml."""

    generate: Generate
    model: ModelShape
    train: Train
    grpo: Grpo
    export: Export
    evaluate: Evaluate
    promote: Gate

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [fmt.name for fmt in self.generate.formats]
        sizes = self.train.batch_sizes
        if len(sizes) != len(names):
            raise ValueError(
                f"train.batch_sizes has {len(sizes)} sizes for the sequence formats "
                f"{', '.join(names)}; give one for each"
            )
        parts = 2 * len(self.generate.operations)
        if self.grpo.questions % parts:
            raise ValueError(
                f"grpo.questions is {self.grpo.questions}; give a multiple of {parts}: each "
                "operation has an equal share, computed in two halves"
            )
        return self


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate `path`; raise InvalidParamsError naming the key and the fix."""
    return validate_params(read_yaml(path), str(path))


def validate_params(content: dict[str, Any], source: str = str(PARAMS)) -> Params:
    """Return Params from parsed YAML; raise InvalidParamsError."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # A misspelled key is both unknown and missing: the unknown one shows what to fix.
        first = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
        message, hint = _describe(first)
        raise InvalidParamsError(f"{source}: {message}", hint) from error


def _describe(error: ErrorDetails) -> tuple[str, str]:
    """Return one pydantic error as message and hint."""
    key = ".".join(str(part) for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        *section, name = error["loc"]
        model: Any = Params.model_fields[str(section[0])].annotation if section else Params
        known = list(model.model_fields)
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {key}", hint
    if error["type"] == "missing":
        return f"key {key} is missing", "add it"
    if "; " in reason:  # of a `_check`
        message, _, hint = reason.rpartition("; ")
        return message, hint
    return f"{key} is {error['input']!r}", reason[0].lower() + reason[1:]
