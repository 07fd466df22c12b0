"""Compare reinforcement learning with more supervised steps, from the same start.

    make bench-grpo        python -m benchmarks.grpo_comparison [--seeds 1 2 3]

Trains with experiments/grpo.yaml until the training stops itself, then goes on from there twice: by
`stages.grpo`, and by supervised steps with the same optimizers and schedule, as many as take about
the same time. Writes benchmarks/results/grpo.json after every seed.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arithmetic.errors import cli_errors
from arithmetic.model import Transformer
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import TINY, Changes, merge
from registry.dvc_lock import read_yaml
from stages import checkpoint, generate, grpo, train
from stages.dataset import read_split
from stages.optimizer import ScheduledOptimizers
from stages.params import load_params
from stages.workers import SHARDS, Workers, run_workers

ROWS = 30  # of a curve
# Supervised steps that take about as long as one of GRPO.
SUPERVISED_STEPS = 6
TINY_GRPO: Changes = {"grpo": {"steps": 10, "questions": 8, "group_size": 4}}


def compare(job: train.Job, workers: Workers) -> dict[str, Any]:
    """Return both continuations: curves, seconds, and errors in the whole domain."""
    assert job.grpo
    start = train.train(job, workers)
    model = Transformer(job.config)
    model.load_state_dict(start.weights)
    clock = time.monotonic()
    by_chain = [count_by_chain(model, job.grpo, workers)]
    counting = time.monotonic() - clock
    clock = time.monotonic()
    weights, tuning = grpo.tune(job.config, start.weights, job.grpo, job.digest(), workers)
    seconds = time.monotonic() - clock - 2 * counting
    supervised = continue_supervised(model, job, workers)
    by_chain.append(count_by_chain(model, job.grpo, workers))
    model.load_state_dict(weights)
    by_chain.append(count_by_chain(model, job.grpo, workers))
    names = ("start", "supervised", "grpo")
    errors = {name: sum(counts) for name, counts in zip(names, by_chain, strict=True)}
    assert errors["grpo"] == tuning.report["errors_after"]
    return {
        "start": {"steps": start.step, "errors": errors["start"]},
        "grpo": {
            "steps": tuning.step,
            "seconds": round(seconds, 1),
            "errors": errors["grpo"],
            "curve": average(tuning.rows),
        },
        "supervised": {**supervised, "errors": errors["supervised"]},
        "equations": tuning.report["equations"],
        "errors_by_chain": dict(zip(names, by_chain, strict=True)),
    }


def count_by_chain(model: Transformer, setup: grpo.Setup, workers: Workers) -> list[int]:
    """Return the wrong answers by the longest run of carries or borrows in the equation."""
    digits = setup.grammar.digits

    def compute(shard: int) -> Tensor:
        counts = torch.zeros(digits + 1, dtype=torch.float64)
        for operation in setup.grammar.operations:
            a, b = (part[shard::SHARDS] for part in setup.grammar.equations(operation))
            wrong = [row for row, _ in grpo.find_failures(model, setup, operation, (a, b))]
            lengths = longest_chain(operation, a[wrong], b[wrong], digits)
            counts += torch.from_numpy(np.bincount(lengths, minlength=digits + 1))
        return counts

    return [int(count) for count in workers.sum_over_shards(compute)]


def longest_chain(operation: str, a: np.ndarray, b: np.ndarray, digits: int) -> np.ndarray:
    """Return the longest run of carries (of borrows, in |a - b|) of each equation: [N]."""
    first, second = (a, b) if operation == "+" else (np.maximum(a, b), np.minimum(a, b))
    carry = run = longest = np.zeros(len(a), np.int64)
    for place in range(digits):
        x, y = first // 10**place % 10, second // 10**place % 10
        carry = (x + y + carry >= 10 if operation == "+" else x - carry < y).astype(np.int64)
        run = (run + 1) * carry
        longest = np.maximum(longest, run)
    return longest


def continue_supervised(model: Transformer, job: train.Job, workers: Workers) -> dict[str, Any]:
    """Train on with the learning rates of GRPO."""
    assert job.grpo
    steps = job.grpo.params.steps * SUPERVISED_STEPS
    setup = replace(job.grpo, params=job.grpo.params.model_copy(update={"steps": steps}))
    batches = train.Batches(job)
    optimizers = ScheduledOptimizers(model, job.params, setup.learning_rate_factor)
    rows: list[dict[str, Any]] = []
    clock = time.monotonic()
    for step in range(steps + 1):
        if step % max(1, steps // ROWS) == 0:
            rows += [
                {"step": step, **grpo.validate(model, setup, operation, workers)}
                for operation in setup.grammar.operations
            ]
        if step < steps:
            train.update_gradients(model, job, batches, step, workers)
            optimizers.step()
    seconds = time.monotonic() - clock
    return {"steps": steps, "seconds": round(seconds, 1), "curve": average(rows)}


def average(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return greedy exact match by step, the mean over the operations."""
    by_step: dict[int, list[float]] = {}
    for row in rows:
        by_step.setdefault(row["step"], []).append(row["exact_match"])
    return [{"step": k, "exact_match": round(sum(v) / len(v), 6)} for k, v in by_step.items()]


def run_seed(content: dict[str, Any]) -> dict[str, Any]:
    """Generate the data and compare, in the working directory."""
    Path("params.yaml").write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(ROOT / "hard_cases.csv", ".")
    generate.main()
    params = load_params()
    splits = [read_split(name, params.generate.grammar) for name in ("train", "validation")]
    with checkpoint.exclusive():
        return run_workers(compare, train.build_job(params, *splits))


def main() -> None:
    """Compare with each seed of the training."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_comparison")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tiny", action="store_true", help="operands 0-9, no result: a test")
    options = parser.parse_args()
    content = merge(read_yaml(ROOT / "params.yaml"), read_yaml(ROOT / "experiments/grpo.yaml"))
    if options.tiny:
        content = merge(merge(content, TINY), TINY_GRPO)
    rows: dict[str, Any] = {}
    with cli_errors():
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                os.chdir(scratch)
                rows[str(seed)] = run_seed(merge(content, {"train": {"seed": seed}}))
                os.chdir(ROOT)
            for name in ("start", "grpo", "supervised"):
                part = {k: v for k, v in rows[str(seed)][name].items() if k != "curve"}
                print(f"seed {seed}, {name}: {part}", flush=True)
            if not options.tiny:
                print(f"wrote {write('grpo', {'seeds': rows})}")


if __name__ == "__main__":
    main()
