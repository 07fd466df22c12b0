"""Compare reinforcement learning with more supervised steps, from the same start.

    make bench-grpo        python -m benchmarks.grpo_comparison [--seeds 1 2 3]

Trains with experiments/grpo.yaml until the training stops itself, then goes on from there twice: by
`stages.grpo`, and by supervised steps with the same optimizers and schedule, as many as take about
the same time. Writes benchmarks/results/grpo.json after every seed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from arithmetic.errors import cli_errors
from arithmetic.grammar import Grammar
from arithmetic.model import Transformer
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import TINY, Changes, merge
from registry.dvc_lock import read_yaml
from stages import checkpoint, generate, grpo, train
from stages.checkpoint import Job
from stages.dataset import read_split
from stages.domain import longest_carry_chain
from stages.optimizer import ScheduledOptimizers
from stages.params import load_params
from stages.workers import SHARDS, Workers, run_workers

ROWS = 30  # of a curve
# Supervised steps that take about as long as one of GRPO.
SUPERVISED_STEPS = 6
TINY_GRPO: Changes = {"grpo": {"steps": 10, "questions": 8, "group_size": 4}}


def compare(job: Job, workers: Workers) -> dict[str, Any]:
    """Return both continuations: curves, seconds, and errors in the whole domain."""
    start = train.train(job, workers)
    model, grammar = Transformer(job.config), job.grammar
    model.load_state_dict(start.weights)
    wrong = pd.DataFrame()
    wrong["start"], before = timed(find_wrong, model, grammar, workers)
    (weights, tuning), seconds = timed(grpo.tune, job, start.weights, workers)
    rows, seconds_supervised = timed(continue_supervised, model, job, workers)
    wrong["supervised"] = find_wrong(model, grammar, workers)
    model.load_state_dict(weights)
    wrong["grpo"], after = timed(find_wrong, model, grammar, workers)
    seconds = seconds - before - after  # `tune` counts both times, too
    errors, new_errors = wrong.sum(), wrong[~wrong["start"]].sum()

    def describe(name: str, seconds: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
        means = pd.DataFrame(rows).groupby("step")["exact_match"].mean()  # over the operations
        return {
            "steps": rows[-1]["step"],
            "seconds": round(seconds, 1),
            "curve": means.round(6).reset_index().to_dict("records"),
            "errors": int(errors[name]),
            "new_errors": int(new_errors[name]),
        }

    chains = [
        longest_carry_chain(operation, *grammar.equations(operation), grammar.digits)
        for operation in grammar.operations
    ]
    return {
        "start": {"steps": start.step, "errors": int(errors["start"])},
        "grpo": describe("grpo", seconds, tuning.rows),
        "supervised": describe("supervised", seconds_supervised, rows),
        "equations": len(wrong),
        "errors_by_chain": wrong.groupby(np.concatenate(chains)).sum().to_dict("list"),
    }


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Return the result of a call, and its seconds."""
    started = time.monotonic()
    result = function(*arguments)
    return result, time.monotonic() - started


def find_wrong(model: Transformer, grammar: Grammar, workers: Workers) -> np.ndarray:
    """Return whether the answer to each equation of the domain is wrong: [N] bool."""

    def compute(shard: int) -> Tensor:
        masks = []
        for operation in grammar.operations:
            a, b = grammar.equations(operation)
            part = slice(shard, None, SHARDS)
            failures = grpo.find_failures(model, grammar, operation, (a[part], b[part]))
            mask = torch.zeros(len(a), dtype=torch.float64)
            mask[part][[row for row, _ in failures]] = 1
            masks.append(mask)
        return torch.cat(masks)

    return workers.sum_over_shards(compute).numpy() > 0


def continue_supervised(model: Transformer, job: Job, workers: Workers) -> list[dict[str, Any]]:
    """Train on with the learning rates of GRPO; return its validations by step and operation."""
    steps = job.params.grpo.steps * SUPERVISED_STEPS
    longer = job.params.grpo.model_copy(update={"steps": steps})
    optimizers = ScheduledOptimizers(
        model, job.params.train, lambda step: grpo.get_learning_rate_factor(longer, step)
    )
    data = train.encode(job, job.train)
    rows: list[dict[str, Any]] = []
    for step in range(steps + 1):
        if step % max(1, steps // ROWS) == 0 or step == steps:
            rows += [{"step": step, **row} for row in grpo.validate(model, job, workers)]
        if step < steps:
            train.update_gradients(model, job, data, step, workers)
            optimizers.step()
    return rows


def run_seed(content: dict[str, Any]) -> dict[str, Any]:
    """Generate the data and compare, in the working directory."""
    Path("params.yaml").write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(ROOT / "hard_cases.csv", ".")
    generate.main()
    params = load_params()
    splits = [read_split(name, params.generate.grammar) for name in ("train", "validation")]
    with checkpoint.exclusive():
        return run_workers(compare, Job(params, *splits))


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
            with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
                rows[str(seed)] = run_seed(merge(content, {"train": {"seed": seed}}))
            for name in ("start", "grpo", "supervised"):
                part = {k: v for k, v in rows[str(seed)][name].items() if k != "curve"}
                print(f"seed {seed}, {name}: {part}", flush=True)
            if not options.tiny:
                print(f"wrote {write('grpo', {'seeds': rows})}")


if __name__ == "__main__":
    main()
