"""What is being served: one attribute that the routes read and `serving.watch` replaces."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence

from prometheus_client import Counter

from arithmetic.config import load_config
from arithmetic.engine import Engine
from arithmetic.errors import RegistryProblem
from arithmetic.grammar import Equation, Grammar
from arithmetic.layouts import Answer
from registry import inputs, signature
from registry.inputs import Profile
from registry.pull import Pulled
from serving import selftest
from serving.batching import Batcher, Limits
from serving.candidate import Candidate
from serving.checking import Checker
from serving.drift import Drift
from serving.hard_cases import HardCases
from serving.metrics import Metrics
from serving.operator import Operator
from serving.remembered import Memory
from serving.served import Served
from serving.settings import Settings
from serving.tally import Tally
from serving.watch import Registry, Server, Watch
from serving.withdrawals import Identity, Withdrawals

__all__ = ["Live", "Served"]

log = logging.getLogger(__name__)


class Live:
    """Holds what is served; `reason` says why it is nothing, or not what the registry names.

    `served` is replaced by one assignment, so that a request sees the old version or the new one.
    Loading takes 0.2 s, for four operations 1.5 s, in the watching thread: onnxruntime lets go of
    the interpreter meanwhile (docs/decisions.md has the pauses that were measured).
    """

    def __init__(self, settings: Settings, registry: Registry | None, metrics: Metrics):
        self.settings = settings
        self.metrics = metrics
        self.served: Served | None = None
        self.drift = Drift(metrics)
        hard_cases = HardCases(settings.hard_cases_file, settings.hard_cases_limit)
        self.checker = Checker(metrics, settings.check_limit, self.drift, hard_cases, self._checked)
        self._withdrawn = Counter(
            "arithmetic_withdrawn",
            "Versions taken out of service because they were too often wrong.",
            ["version"],
            registry=metrics.registry,
        )
        self._refused = Counter(
            "arithmetic_versions_refused",
            "Versions that did not pass on their way into service.",
            ["version"],
            registry=metrics.registry,
        )
        uri, server = settings.model_uri, settings.mlflow_tracking_uri
        self.watch = Watch(
            uri,
            registry or Server(server, settings.registry_timeout_seconds),
            settings.model_cache,
            self._take,
            Memory(settings.model_cache, uri, server),
            Withdrawals(settings.model_cache, uri, server),
            self._heard,
            self._still_named,
            settings.watch_seconds,
            settings.pull_retry_seconds,
            self._emptied,
            start_from_disk=settings.start_from_disk,
            on_refusal=lambda version: self._refused.labels(version).inc(),
        )
        self.operator = Operator(settings)
        self.candidate: Candidate | None = None
        if settings.model_uri_candidate:
            self.candidate = Candidate(
                settings,
                registry or Server(server, settings.registry_timeout_seconds),
                self._load,
                lambda: self.served,
                self.checker,
                metrics,
            )

    @property
    def reason(self) -> str | None:
        return self.watch.reason

    def pick(self) -> Served | None:
        """Which version answers the next request."""
        if self.candidate is not None and self.served is not None:
            return self.candidate.pick() or self.served
        return self.served

    async def start(self, patience: float) -> None:
        """Begin to follow; returns after a first attempt, or after `patience` seconds without."""
        self.checker.start()
        self.watch.start()
        if self.candidate is not None:
            self.candidate.start()
        deadline = time.monotonic() + patience
        while not self.watch.tried.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Follow no more and finish the checks; what is served stays."""
        self.watch.stop()
        if self.candidate is not None:
            self.candidate.stop()
        self.checker.stop()

    def _load(self, pulled: Pulled) -> Served:
        """Load and self-test; raises BrokenBundle."""
        signature.check(pulled.bundle, self.settings.trusted_key)
        engine = Engine(pulled.bundle)
        selftest.check(engine, pulled.version, pulled.errors)
        settings = self.settings
        tally = Tally(pulled.version, pulled.bundle_sha256)
        answer = tally.timed(engine.answer)
        limits = Limits(settings.largest_batch, settings.queue_limit, settings.deadline_seconds)
        check = self.checker.observer(tally, engine.grammar)

        # It must not hold `Served`, which holds it: after gc.freeze nobody would free the circle.
        def observe(equations: Sequence[Equation], answers: Sequence[Answer]) -> None:
            check(equations, answers)
            if self.candidate is not None:
                self.candidate.copy(tally, engine.answer, equations)

        failed = self.checker.failures(tally, engine.grammar)
        batcher = Batcher(answer, limits, self.metrics, pulled.version, observe, failed)
        batcher.warm(full_batches(engine.grammar, settings.largest_batch))
        tally.forget_calls()
        return Served(
            pulled.name,
            pulled.version,
            pulled.bundle_sha256,
            engine.grammar,
            batcher,
            engine,
            answer,
            tally,
            noted_inputs(pulled),
        )

    def _take(self, pulled: Pulled) -> Callable[[], None]:
        served = self._load(pulled)
        noted = served.inputs
        reference = noted or inputs.uniform(served.grammar)
        says = "its training data" if noted else "every equation of the domain alike"

        def put() -> None:
            self.drift.compare_with(served.grammar, reference, says)
            self.served = served
            self.metrics.now_serving(served.name, served.version, served.bundle_sha256)
            # What was loaded stays: the collector need not look at it again with every full pass,
            # which made much of the 99th percentile (docs/decisions.md).
            gc.collect()
            gc.freeze()

        return put

    def _checked(self, tally: Tally) -> None:
        """Take a version out of service that is too often wrong. In the checking thread."""
        settings = self.settings
        reason = tally.excess(settings.error_rate_limit, settings.error_rate_minimum)
        if reason is None or tally.withdrawn:
            return
        tally.withdrawn = True
        served, tried = self.served, self.candidate.served if self.candidate else None
        if tried is not None and tried.tally is tally:
            self._withdraw_candidate(tried, reason)
        elif served is not None and served.tally is tally:
            self._withdraw(served, reason)

    def _withdraw_candidate(self, tried: Served, reason: str) -> None:
        assert self.candidate is not None
        if self.candidate.withdraw(tried, reason):
            log.error("the candidate is tried no more: %s", reason)
            self._withdrawn.labels(tried.version).inc()

    def _withdraw(self, served: Served, reason: str) -> None:
        if not self.watch.moves:
            log.error("%s; it stays, since MODEL_URI names it by its number", reason)
            self.watch.reason = reason
            return
        first, replaced = self.watch.withdraw(served.identity, reason)
        if first:
            log.error("taken out of service: %s", reason)
            self._withdrawn.labels(served.version).inc()
        self._replaced(served.identity, replaced, reason)

    def _heard(self, identity: Identity, reason: str, replaced: bool) -> None:
        """Another worker has withdrawn what was served; the operator may be here."""
        self._replaced(identity, replaced, reason)

    def _replaced(self, withdrawn: Identity, replaced: bool, reason: str) -> None:
        """A version is out of service, and an earlier one has taken its place or not."""
        if not replaced:
            log.error("no earlier version has passed here: nothing is served until one is promoted")
        tried = self.candidate.served if self.candidate else None
        if tried is not None and tried.identity == withdrawn:
            self._withdraw_candidate(tried, reason)
        self._still_named(withdrawn, reason)

    def _emptied(self) -> None:
        """Nothing is served any more."""
        self.served = None
        self.metrics.serving_nothing()

    def _still_named(self, withdrawn: Identity, reason: str) -> None:
        """The alias has to leave a withdrawn version, if an operator is here."""
        now = self.served
        self.operator.roll_back(withdrawn[0], now.version if now is not None else None, reason)


def noted_inputs(pulled: Pulled) -> Profile | None:
    """The profile of training inputs that came with a version, if one did."""
    try:
        content = inputs.beside(pulled.bundle).read_bytes()
        return inputs.read(content, load_config(pulled.bundle).grammar)
    except FileNotFoundError:
        return None
    except (OSError, RegistryProblem) as problem:
        log.warning("the training inputs of version %s are not known: %s", pulled.version, problem)
        return None


def full_batches(grammar: Grammar, size: int) -> list[list[Equation]]:
    """One batch for each operation."""
    return [
        [Equation(n % (grammar.max_operand + 1), operation, 1) for n in range(size)]
        for operation in grammar.operations
    ]
