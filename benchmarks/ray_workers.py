"""Time the certification of the whole domain by joblib's processes and on a Ray cluster.

    make setup-ray bench-ray        python -m benchmarks.ray_workers

Every node of the cluster is on this machine and has one CPU. A time includes the workers' start
and their imports. Medians of the rounds, in turn; writes benchmarks/results/ray.json.
"""

import argparse
import hashlib
import os
import time
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


def measure(equations: pd.DataFrame) -> dict[str, Any]:
    """Return the seconds of one certification, and a digest of its margins."""
    started = time.monotonic()
    margins = run_over_shards(compute_margins, MODEL, equations, SHARD, "certify")
    seconds = time.monotonic() - started
    digest = hashlib.sha256(margins["margin"].to_numpy().tobytes()).hexdigest()
    return {"seconds": seconds, "digest": digest}


def measure_joblib(workers: int, equations: pd.DataFrame) -> dict[str, Any]:
    """Measure with `workers` new processes of joblib."""
    os.environ["LOKY_MAX_CPU_COUNT"] = str(workers)
    try:
        return measure(equations)
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown()
        del os.environ["LOKY_MAX_CPU_COUNT"]


def measure_ray(workers: int, equations: pd.DataFrame) -> dict[str, Any]:
    """Measure with a new cluster of `workers` nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(workers):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        os.environ["RAY_ADDRESS"] = cluster.address
        return measure(equations)
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


BACKENDS = {"joblib": measure_joblib, "ray": measure_ray}


def main() -> None:
    """Measure one and two workers of each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_workers")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with cli_errors():
        grammar = artifacts.load_config(MODEL).get_grammar()
        equations = build_frame({name: grammar.equations(name) for name in grammar.operations})
        frame = pd.DataFrame(
            {"backend": name, "workers": workers, **BACKENDS[name](workers, equations)}
            for _ in range(options.rounds)
            for name in BACKENDS
            for workers in (1, 2)
        )
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
