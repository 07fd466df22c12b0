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
from typing import Any

import joblib
import pandas as pd

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import table, write
from stages import MODEL
from stages.certify import compute_margins, run_over_shards
from stages.dataset import build_frame
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
    os.environ["LOKY_MAX_CPU_COUNT"] = str(workers)
    try:
        yield
    finally:
        del os.environ["LOKY_MAX_CPU_COUNT"]
        joblib.externals.loky.get_reusable_executor().shutdown()


BACKENDS = {"joblib": use_processes, "ray": use_ray}


def measure(equations: pd.DataFrame) -> dict[str, Any]:
    """Return the seconds of one certification, and a digest of its margins."""
    started = time.monotonic()
    margins = run_over_shards(compute_margins, MODEL, equations, SHARD, "certify")
    seconds = time.monotonic() - started
    digest = hashlib.sha256(margins["margin"].to_numpy().tobytes()).hexdigest()
    return {"seconds": seconds, "digest": digest}


def main() -> None:
    """Measure one and two workers of each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_workers")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with cli_errors():
        grammar = artifacts.load_config(MODEL).get_grammar()
        equations = build_frame({name: grammar.equations(name) for name in grammar.operations})
        samples = []
        for _ in range(options.rounds):
            for backend, use in BACKENDS.items():
                for workers in (1, 2):
                    with use(workers):
                        figures = measure(equations)
                    samples.append({"backend": backend, "workers": workers, **figures})
        frame = pd.DataFrame(samples)
        if frame["digest"].nunique() > 1:
            raise UserError("the margins differ between backends")
        medians = frame.groupby(["backend", "workers"])["seconds"].median().reset_index()
        one = medians.groupby("backend")["seconds"].transform("first")  # worker
        medians["efficiency"] = (one / medians["seconds"] / medians["workers"]).round(2)
        rows = medians.round({"seconds": 1}).to_dict("records")
        print(table(rows))
        general = {"rounds": options.rounds, "equations": len(equations)}
        print(f"wrote {write('ray', {**general, 'rows': rows})}")


if __name__ == "__main__":
    main()
