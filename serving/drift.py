"""Are users asking what the model was trained on?

The population stability index of each feature over the latest inputs: 0 for the same distribution;
by custom under 0.1 is stable and over 0.25 another population.
"""

from collections import deque
from collections.abc import Sequence
from math import log
from threading import Lock

import numpy as np
from prometheus_client import Gauge

from arithmetic.grammar import Equation, Grammar
from registry.inputs import Profile, profile
from serving.metrics import Metrics
from serving.reports import Drifted

BLOCK = 500  # inputs; even without drift, 500 of them give an index of about 0.02 over ten bins
BLOCKS = 20


class Drift:
    """About `BLOCK * BLOCKS` of the latest inputs against a reference; fed by one thread."""

    def __init__(self, metrics: Metrics):
        self._gauge = Gauge(
            "arithmetic_input_drift_psi",
            "Population stability index of the latest inputs against the training data.",
            ["feature"],
            multiprocess_mode="max",
            registry=metrics.registry,
        )
        self._grammar: Grammar | None = None
        self._reference: Profile = {}
        self._source = ""
        self._block: list[Equation] = []
        self._blocks: deque[Profile] = deque(maxlen=BLOCKS)
        self._lock = Lock()  # versions change in another thread than inputs are counted
        self.psi: dict[str, float] = {}

    def compare_with(self, grammar: Grammar, reference: Profile, source: str) -> None:
        """Begin anew with another version's training data."""
        if (grammar, reference) == (self._grammar, self._reference):
            return
        with self._lock:
            self._grammar, self._reference, self._source = grammar, reference, source
            self._block, self._blocks, self.psi = [], deque(maxlen=BLOCKS), {}

    def add(self, equations: Sequence[Equation], grammar: Grammar) -> None:
        """Count what was asked; every `BLOCK` inputs the index is computed again.

        What another grammar accepted, that of a version before or of a candidate, is left out.
        """
        with self._lock:
            if grammar != self._grammar:
                return
            self._block += equations
            if len(self._block) >= BLOCK:
                self._compute(grammar)

    def _compute(self, grammar: Grammar) -> None:
        block, self._block = self._block, []
        self._blocks.append(profile(columns(block), grammar))
        for feature, expected in self._reference.items():
            total = {name: sum(one[feature][name] for one in self._blocks) for name in expected}
            self.psi[feature] = round(index(expected, total), 4)
            self._gauge.labels(feature).set(self.psi[feature])

    def report(self) -> Drifted:
        """For /health."""
        blocks = list(self._blocks)
        inputs = sum(sum(block["operation"].values()) for block in blocks)
        return Drifted(reference=self._source, inputs=inputs, psi=dict(self.psi))


def columns(equations: Sequence[Equation]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Operands by operation."""
    by_operation: dict[str, list[tuple[int, int]]] = {}
    for equation in equations:
        pair = equation.operand_1, equation.operand_2
        by_operation.setdefault(equation.operation, []).append(pair)
    found = {}
    for operation, pairs in by_operation.items():
        operands = np.array(pairs, np.int64)
        found[operation] = operands[:, 0], operands[:, 1]
    return found


def index(expected: dict[str, int], actual: dict[str, int]) -> float:
    """The population stability index of two counts over the same bins.

    Half an input is added to each bin, so that an empty one is improbable and not impossible.
    """
    bins = len(expected)
    result = 0.0
    for name in expected:
        p = (expected[name] + 0.5) / (sum(expected.values()) + 0.5 * bins)
        q = (actual[name] + 0.5) / (sum(actual.values()) + 0.5 * bins)
        result += (q - p) * log(q / p)
    return result
