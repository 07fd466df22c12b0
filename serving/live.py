"""What is being served: one attribute that the routes read and `serving.watch` replaces."""

import asyncio
import gc
import logging
import time
from dataclasses import dataclass

from arithmetic.engine import Engine
from arithmetic.grammar import Equation, Grammar
from registry.pull import Pulled
from serving import selftest
from serving.batching import Batcher, Limits
from serving.metrics import Metrics
from serving.remembered import Memory
from serving.settings import Settings
from serving.watch import Registry, Server, Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A loaded version. Requests hold on to the one that took them, through any swap."""

    name: str
    version: str
    bundle_sha256: str
    grammar: Grammar
    batcher: Batcher
    engine: Engine


class Live:
    """Holds what is served; `reason` says why it is nothing, or not what the registry names.

    `served` is replaced by one assignment, so that a request sees the old version or the new one.
    Loading takes 0.2 s, for four operations 1.5 s, in the watching thread: onnxruntime lets go of
    the interpreter meanwhile (longest pause of another thread: a switch interval, 5-13 ms).
    """

    def __init__(self, settings: Settings, registry: Registry | None, metrics: Metrics):
        self.settings = settings
        self.metrics = metrics
        self.served: Served | None = None
        memory = None
        if settings.start_from_disk:
            memory = Memory(settings.model_cache, settings.model_uri, settings.mlflow_tracking_uri)
        self.watch = Watch(
            settings.model_uri,
            registry or self._server(),
            settings.model_cache,
            self._take,
            memory,
            settings.watch_seconds,
            settings.pull_retry_seconds,
        )

    @property
    def reason(self) -> str | None:
        return self.watch.reason

    def pick(self) -> Served | None:
        """Which version answers the next request."""
        return self.served

    async def start(self, patience: float) -> None:
        """Begin to follow; returns after a first attempt, or after `patience` seconds without."""
        self.watch.start()
        deadline = time.monotonic() + patience
        while not self.watch.tried.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Follow no more; what is served stays."""
        self.watch.stop()

    def _server(self) -> Server:
        settings = self.settings
        return Server(settings.mlflow_tracking_uri, settings.registry_timeout_seconds)

    def _load(self, pulled: Pulled) -> Served:
        """Load and self-test; raises BrokenBundle."""
        engine = Engine(pulled.bundle)
        selftest.check(engine, pulled.version, pulled.errors)
        settings = self.settings
        limits = Limits(settings.largest_batch, settings.queue_limit, settings.deadline_seconds)
        batcher = Batcher(engine.answer, limits, self.metrics, pulled.version)
        batcher.warm(full_batches(engine.grammar, settings.largest_batch))
        return Served(
            pulled.name,
            pulled.version,
            pulled.bundle_sha256,
            engine.grammar,
            batcher,
            engine,
        )

    def _take(self, pulled: Pulled, source: str) -> None:
        self.served = self._load(pulled)
        # What was loaded stays: the collector need not look at it again with every full pass,
        # which made much of the 99th percentile (docs/decisions.md).
        gc.collect()
        gc.freeze()


def full_batches(grammar: Grammar, size: int) -> list[list[Equation]]:
    """One batch for each operation."""
    return [
        [Equation(n % (grammar.max_operand + 1), operation, 1) for n in range(size)]
        for operation in grammar.operations
    ]
