"""make seeds: is the recipe exact, or was one seed lucky?

Fresh data and a fresh model for each of ten seeds, each certified on its whole domain.
"""

import argparse
from pathlib import Path
from typing import Any

from arithmetic.errors import reported
from benchmarks.module_run import ROOT
from benchmarks.results_file import write
from benchmarks.trial import Changes, trial

FIRST_SEED = 101  # none that the recipe was tuned on


def one_seed(params: Path, seed: int, changes: Changes | None = None) -> dict[str, Any]:
    """Errors, margin and seconds of a training with both seeds set to `seed`."""
    changes = {section: dict(values) for section, values in (changes or {}).items()}
    for section in ("generate", "train"):
        changes.setdefault(section, {})["seed"] = seed
    found = trial(f"seed {seed}", params, changes)
    evaluation = found["evaluation"]
    kept = ("errors", "equations", "hallucinations", "infinite_generation", "out_of_range")
    return {
        "seed": seed,
        **{key: evaluation[key] for key in kept},
        "smallest_margin": evaluation["smallest_margin"],
        "parameters": found["training"]["parameters"],
        "train_seconds": found["seconds"]["train"],
        "evaluate_seconds": found["seconds"]["evaluate"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and certify with fresh seeds.")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--result", default="seeds", help="name of the result; empty: none")
    given = parser.parse_args()
    rows = []
    with reported():
        print(
            f"{'seed':>5} {'errors':>7} {'margin':>7} {'params':>8} {'train s':>8} {'certify s':>9}"
        )
        for seed in range(given.first, given.first + given.seeds):
            row = one_seed(given.params, seed)
            rows.append(row)
            print(
                f"{seed:5d} {row['errors']:7d} {row['smallest_margin']:7.2f} "
                f"{row['parameters']:8,d} {row['train_seconds']:8.1f} "
                f"{row['evaluate_seconds']:9.1f}",
                flush=True,
            )
        exact = sum(row["errors"] == 0 for row in rows)
        print(f"exact on the whole domain: {exact} of {len(rows)}")
        if given.result:
            write(given.result, {"exact": exact, "seeds": rows})


if __name__ == "__main__":
    main()
