"""Load a verified model directory and test it before it serves."""

import random
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from arithmetic.errors import InvalidModelError
from arithmetic.formats import classify
from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from arithmetic.inference import OnnxModel
from arithmetic.input_profile import read_profile
from registry.download import ModelVersionRef
from serving.batcher import Batcher
from serving.metrics import Metrics
from serving.monitoring import Drift, Monitor, VersionStats
from serving.settings import Settings

RANDOM_PAIRS = 100
TEST_BATCH = 64

Source = Literal["registry", "last_known_good", "directory"]


@dataclass(frozen=True)
class LoadedModel:
    """Hold a version in memory; a request keeps the one it began with, through any swap."""

    version: ModelVersionRef
    directory: Path
    grammar: Grammar
    batcher: Batcher
    stats: VersionStats
    decoders: OnnxModel


def load_model(
    directory: Path,
    version: ModelVersionRef,
    settings: Settings,
    metrics: Metrics,
    monitor: Monitor,
) -> LoadedModel:
    """Load and test a model.

    Raises:
        InvalidModelError: a file does not load, or too many answers of the self-test are wrong.
    """
    model = OnnxModel(directory)
    self_test(model, settings.max_error_rate)
    drift = Drift(model.grammar, read_profile(directory, model.grammar), metrics.drift)
    stats = VersionStats(version.version, version.digest, model.grammar, drift)
    # The callback must not hold the LoadedModel: gc.freeze would keep such a cycle forever.
    on_batch = partial(monitor.submit, stats)
    batcher = Batcher(model.answer, model.grammar, settings, metrics, on_batch)
    return LoadedModel(version, directory, model.grammar, batcher, stats, model)


def self_test(model: OnnxModel, max_error_rate: float) -> None:
    """Let the model answer a fixed set of equations.

    It finds what digests cannot: a graph that this onnxruntime computes differently, or a version
    that was registered by mistake.

    Raises:
        InvalidModelError: the error rate is above the limit.
    """
    equations = self_test_equations(model.grammar)
    wrong = []
    for start in range(0, len(equations), TEST_BATCH):
        batch = equations[start : start + TEST_BATCH]
        for equation, answer in zip(batch, model.answer(batch), strict=True):
            expected = solve(equation)
            if classify(answer, expected, equation.operation, model.grammar).wrong:
                wrong.append(f"{equation}{answer.text} instead of {expected}")
    if len(wrong) > max_error_rate * len(equations):
        raise InvalidModelError(
            f"the self-test failed: {len(wrong)} of {len(equations)} answers are wrong ({wrong[0]})"
            f"; MAX_ERROR_RATE is {max_error_rate:g}",
            "promote another version",
        )


@lru_cache
def self_test_equations(grammar: Grammar) -> tuple[Equation, ...]:
    """Return all pairs of the domain's corners for each operation, and fixed random pairs."""
    largest, digits = grammar.max_operand, grammar.digits
    corners = {0, 1, largest, largest - 1, largest // 2}
    corners |= {10**n for n in range(digits)} | {10**n - 1 for n in range(1, digits)}
    rng = random.Random(0)
    pairs = [(a, b) for a in sorted(corners) for b in sorted(corners)]
    pairs += [(rng.randint(0, largest), rng.randint(0, largest)) for _ in range(RANDOM_PAIRS)]
    return tuple(
        Equation(a, operation, b)
        for operation in grammar.operations
        for a, b in dict.fromkeys(pairs)
        if b >= OPERATIONS[operation].smallest_operand_2
    )
