"""Count what /metrics exposes, in Prometheus' format.

One `Metrics` belongs to one application. Children (`labels(…)`) are looked up once and kept where
a request uses them: the look-up costs more than the counting.
"""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# From half a millisecond, the time of a single client, to the default deadline.
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
VERSION, OPERATION = ["version"], ["version", "operation"]


class Metrics:
    """Hold the counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, namespace="arithmetic", registry=self.registry)
        gauge = partial(Gauge, namespace="arithmetic", registry=self.registry)
        histogram = partial(Histogram, namespace="arithmetic", registry=self.registry)

        self.requests = counter("requests", "Requests by route and outcome.", ["route", "outcome"])
        self.request_seconds = histogram(
            "request_seconds",
            "Seconds from a request's headers to its answer.",
            ["route"],
            buckets=SECONDS,
        )
        self.batch_size = histogram(
            "batch_size", "Equations in one call of the model.", ["format"], buckets=BATCH_SIZES
        )
        self.queue_depth = gauge("queue_depth", "Equations that wait for a call.", ["format"])

        self.checked = counter("checked", "Answers compared with the exact one.", OPERATION)
        self.wrong = counter("wrong", "Wrong answers.", OPERATION)
        self.hallucinations = counter("hallucinations", "Answers that are not integers.", VERSION)
        self.infinite = counter("infinite_generations", "Answers without an end.", VERSION)
        self.out_of_range = counter(
            "out_of_range", "Integers that no equation has as its answer.", VERSION
        )
        self.failed = counter("failed", "Equations on which the model raised.", VERSION)
        self.unchecked = counter(
            "unchecked", "Answers not checked, because too many were waiting.", VERSION
        )
        self.drift = gauge(
            "input_drift_psi",
            "Population stability index of the latest inputs against the training data.",
            ["feature"],
        )

        self.model = gauge(
            "model_info", "1 for the version that is served.", ["name", "version", "digest"]
        )
        self.load_failures = counter(
            "model_load_failures", "Attempts to load a version that failed.", VERSION
        )
        self.rejected = counter(
            "model_rejected", "Versions rejected for their error rate.", VERSION
        )
        self.registry_up = gauge("registry_up", "1 if the registry answered the last request.")

    def set_model(self, name: str, version: str, digest: str) -> None:
        """Mark one version as served, and no other."""
        self.model.clear()
        self.model.labels(name, version, digest).set(1)
