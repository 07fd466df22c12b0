"""Time the certification of the whole domain by joblib's processes and on a Ray cluster.

    make setup-ray bench-ray        python -m benchmarks.ray_workers

Every node of the cluster is on this machine and has one CPU. A time includes the workers' start
and their imports. Medians of the rounds, in turn; writes benchmarks/results/ray.json.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import joblib

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import table, write
from stages import MODEL
from stages.certify import Equations, compute_margins, run_over_shards
from stages.evaluate import SHARD


@contextmanager
def use_ray(workers: int) -> Iterator[None]:
    """Let RAY_ADDRESS name a cluster of `workers` nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(workers):
        cluster.add_node(num_cpus=1, include_dashboard=False)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        cluster.shutdown()


@contextmanager
def use_processes(workers: int) -> Iterator[None]:
    """Let joblib use `workers` new processes."""
    count, joblib.cpu_count = joblib.cpu_count, lambda: workers
    try:
        yield
    finally:
        joblib.cpu_count = count
        joblib.externals.loky.get_reusable_executor().shutdown()


BACKENDS = {"joblib": use_processes, "ray": use_ray}


def measure(equations: list[Equations]) -> tuple[float, str]:
    """Return the seconds of one certification, and a digest of its margins."""
    started = time.monotonic()
    margins = run_over_shards(compute_margins, MODEL, equations, SHARD, "certify")
    seconds = time.monotonic() - started
    return seconds, hashlib.sha256(b"".join(part.tobytes() for part in margins)).hexdigest()


def main() -> None:
    """Measure one and two workers of each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_workers")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with cli_errors():
        grammar = artifacts.load_config(MODEL).get_grammar()
        equations = [Equations(name, *grammar.equations(name)) for name in grammar.operations]
        times: dict[tuple[str, int], list[float]] = {}
        digests = set()
        for _ in range(options.rounds):
            for backend, use in BACKENDS.items():
                for workers in (1, 2):
                    with use(workers):
                        seconds, digest = measure(equations)
                    times.setdefault((backend, workers), []).append(seconds)
                    digests.add(digest)
        if len(digests) > 1:
            raise UserError("the margins differ between backends")
        rows: list[dict[str, Any]] = []
        for (backend, workers), values in times.items():
            seconds = median(values)
            efficiency = median(times[backend, 1]) / seconds / workers
            row = {"backend": backend, "workers": workers, "seconds": round(seconds, 1)}
            rows.append({**row, "efficiency": round(efficiency, 2)})
        print(table(rows))
        count = sum(len(part.a) for part in equations)
        general = {"rounds": options.rounds, "equations": count}
        print(f"wrote {write('ray', {**general, 'rows': rows})}")


if __name__ == "__main__":
    main()
