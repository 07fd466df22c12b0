"""make frontier: the smallest models that are exact, by parameters; and the smallest training set.

Each line is the default recipe with another shape (or another number of training equations) and
fresh seeds, certified on the whole domain of 2,000,000 equations. The neighbour is the AdderBoard
challenge (smallest Transformers for ten-digit addition), whose models start at 36 parameters, many
with weights set by hand; these are trained, and subtract as well.
"""

import argparse
from typing import Any

from arithmetic.errors import reported
from benchmarks.module_run import ROOT
from benchmarks.results_file import write
from benchmarks.seeds import one_seed
from benchmarks.trial import Changes

# Changes of `model` in params.yaml, largest first.
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"attention": "content"},
    {"d_model": 12},
    {"d_model": 12, "mlp_ratio": 2},
    {"d_model": 12, "heads": 2},
    {"d_model": 8},
    {"d_model": 8, "heads": 2},
)
# Training equations of the default shape.
SIZES = (50_000, 20_000, 10_000, 5_000, 2_000)


def rows_of(label: str, changes: Changes, first: int, seeds: int) -> list[dict[str, Any]]:
    """One row a seed, printed as it comes."""
    rows = []
    for seed in range(first, first + seeds):
        found = one_seed(ROOT / "params.yaml", seed, changes)
        row = {key: found[key] for key in ("seed", "parameters", "errors", "smallest_margin")}
        rows.append({"changes": changes, **row})
        print(
            f"{row['parameters']:8,d} {row['errors']:9,d} {row['smallest_margin']:7.2f} "
            f"{seed:5d}  {label}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Train smaller models, and on less data.")
    parser.add_argument("--first", type=int, default=101, help="first seed")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each line")
    given = parser.parse_args()
    with reported():
        print(f"{'params':>8} {'errors':>9} {'margin':>7} {'seed':>5}  changes")
        shapes, sizes = [], []
        for shape in SHAPES:
            label = ", ".join(f"{key} {value}" for key, value in shape.items()) or "the default"
            shapes += rows_of(label, {"model": shape}, given.first, given.seeds)
        for size in SIZES:
            changes: Changes = {"generate": {"train_size": size}}
            sizes += rows_of(f"train_size {size:,}", changes, given.first, given.seeds)
        write("frontier", {"shapes": shapes, "training_sizes": sizes})


if __name__ == "__main__":
    main()
