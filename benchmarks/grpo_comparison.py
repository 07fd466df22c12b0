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
from arithmetic.grammar import Grammar
from arithmetic.model import Transformer
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import TINY, Changes, merge
from registry.dvc_lock import read_yaml
from stages import checkpoint, generate, grpo, train
from stages.dataset import read_split
from stages.domain import longest_carry_chain
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
    wrong = {"start": find_wrong(model, job.grpo, workers)}
    counting = time.monotonic() - clock
    clock = time.monotonic()
    weights, tuning = grpo.tune(job.config, start.weights, job.grpo, job.digest(), workers)
    tuning_and_counting = time.monotonic() - clock
    supervised = continue_supervised(model, job, workers)
    wrong["supervised"] = find_wrong(model, job.grpo, workers)
    model.load_state_dict(weights)
    clock = time.monotonic()
    wrong["grpo"] = find_wrong(model, job.grpo, workers)
    counting += time.monotonic() - clock  # a model with fewer errors is counted faster
    chains = list_chains(job.grpo.grammar)
    lengths = range(job.grpo.grammar.digits + 1)
    errors = {name: int(mask.sum()) for name, mask in wrong.items()}
    new_errors = {name: int((mask & ~wrong["start"]).sum()) for name, mask in wrong.items()}
    assert errors["grpo"] == tuning.report["errors_after"]
    return {
        "start": {"steps": start.step, "errors": errors["start"]},
        "grpo": {
            "steps": tuning.step,
            "seconds": round(tuning_and_counting - counting, 1),
            "errors": errors["grpo"],
            "new_errors": new_errors["grpo"],
            "curve": average(tuning.rows),
        },
        "supervised": {
            **supervised,
            "errors": errors["supervised"],
            "new_errors": new_errors["supervised"],
        },
        "equations": tuning.report["equations"],
        "errors_by_chain": {
            name: [int((chains[mask] == length).sum()) for length in lengths]
            for name, mask in wrong.items()
        },
    }


def find_wrong(model: Transformer, setup: grpo.Setup, workers: Workers) -> np.ndarray:
    """Return whether the answer to each equation of the domain is wrong: [N] bool."""

    def compute(shard: int) -> Tensor:
        masks = []
        for operation in setup.grammar.operations:
            a, b = setup.grammar.equations(operation)
            part = slice(shard, None, SHARDS)
            failures = grpo.find_failures(model, setup, operation, (a[part], b[part]))
            mask = torch.zeros(len(a), dtype=torch.float64)
            mask[part][[row for row, _ in failures]] = 1
            masks.append(mask)
        return torch.cat(masks)

    return workers.sum_over_shards(compute).numpy() > 0


def list_chains(grammar: Grammar) -> np.ndarray:
    """Return the longest carry chain of each equation of the domain: [N] int64."""
    chains = [
        longest_carry_chain(operation, *grammar.equations(operation), grammar.digits)
        for operation in grammar.operations
    ]
    return np.concatenate(chains)


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
