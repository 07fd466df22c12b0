"""What /metrics says, in Prometheus' format.

One `Metrics` belongs to one application; whoever counts something gets it as an argument and adds
its own objects with `registry=metrics.registry`. Children (`labels(...)`) are looked up once and
kept: a look-up costs more than the counting.

With several workers, `PROMETHEUS_MULTIPROC_DIR` is set before prometheus_client is imported
(`serving.workers` does it); each process then counts into files in that folder, and whichever is
asked adds them up. Gauges say by `multiprocess_mode` how they are put together.
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from serving.problems import ServingProblem

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From half a millisecond, what one client waits, to the default deadline.
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one application.

    Attributes:
        registry: where further metrics are registered.
        requests: by route and outcome (`outcomes` in docs/serving.md).
        seconds: how long a request took from its parsed head to its answer, by route.
        answers: equations answered, by version and operation.
        refused: inputs that were refused, by reason.
        batch_size: equations in a call of the model, by operation.
        queue_depth: equations that wait for a call, by operation.
        model: 1 for the version that is served, with its digest; 0 for those that were.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._serving: tuple[str, str, str] | None = None
        self._several = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        if not self._several:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "arithmetic_requests",
            "Requests by route and outcome.",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "arithmetic_request_seconds",
            "Seconds from the parsed head of a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            "arithmetic_answers",
            "Equations answered, by version and operation.",
            ["version", "operation"],
            registry=self.registry,
        )
        self.refused = Counter(
            "arithmetic_refused",
            "Inputs refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "arithmetic_batch_size",
            "Equations in one call of the model.",
            ["operation"],
            buckets=BATCHES,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "arithmetic_queue_depth",
            "Equations that wait for a call of the model.",
            ["operation"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.model = Gauge(
            "arithmetic_model_info",
            "1 for the version that is served, 0 for those that were.",
            ["name", "version", "bundle_sha256"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )

    def refuse(self, problem: ServingProblem) -> None:
        """Count an input as refused, where the problem is the client's doing."""
        if problem.reason is not None:
            self.refused.labels(problem.reason).inc()

    def now_serving(self, name: str, version: str, bundle_sha256: str) -> None:
        """Mark one version as served, and the one before as not."""
        if self._serving is not None:
            self.model.labels(*self._serving).set(0)
        self._serving = name, version, bundle_sha256
        self.model.labels(*self._serving).set(1)

    def serving_nothing(self) -> None:
        """No version is served any more."""
        if self._serving is not None:
            self.model.labels(*self._serving).set(0)
            self._serving = None

    def exposition(self) -> bytes:
        """All of it as text; with several workers, of all of them."""
        if self._several:
            together = CollectorRegistry()
            MultiProcessCollector(together)
            return generate_latest(together)
        return generate_latest(self.registry)
