"""Count what /metrics exposes, in Prometheus' format.

One `Metrics` belongs to one application. Children (`labels(…)`) are looked up once and kept where
a request uses them: the look-up costs more than the counting.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

# From half a millisecond, the time of a single client, to the default deadline.
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Hold the counters of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"arithmetic_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"arithmetic_{name}", documentation, labels, registry=registry)

        self.requests = counter("requests", "Requests by route and outcome.", "route", "outcome")
        self.request_seconds = Histogram(
            "arithmetic_request_seconds",
            "Seconds from a request's headers to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "arithmetic_batch_size",
            "Equations in one call of the model.",
            ["format"],
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self.queue_depth = gauge("queue_depth", "Equations that wait for a call.", "format")
        by_operation = ("version", "operation")
        self.checked = counter("checked", "Answers compared with the exact one.", *by_operation)
        self.wrong = counter("wrong", "Wrong answers.", *by_operation)
        self.hallucinations = counter("hallucinations", "Answers that are not integers.", "version")
        self.infinite = counter("infinite_generations", "Answers without an end.", "version")
        self.out_of_range = counter(
            "out_of_range", "Integers that no equation has as its answer.", "version"
        )
        self.failed = counter("failed", "Equations on which the model raised.", "version")
        self.unchecked = counter(
            "unchecked", "Answers not checked, because too many were waiting.", "version"
        )
        self.drift = gauge(
            "input_drift_psi",
            "Population stability index of the latest inputs against the training data.",
            "feature",
        )
        self.model = gauge(
            "model_info",
            "1 for the version that is served.",
            "name",
            "version",
            "digest",
        )
        self.load_failures = counter(
            "model_load_failures", "Attempts to load a version that failed.", "version"
        )
        self.rejected = counter(
            "model_rejected", "Versions rejected for their error rate.", "version"
        )
        self.registry_up = gauge("registry_up", "1 if the registry answered the last request.")

    def set_model(self, name: str, version: str, digest: str) -> None:
        """Mark one version as served, and no other."""
        self.model.clear()
        self.model.labels(name, version, digest).set(1)
