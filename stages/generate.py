"""generate: params to train, validation and test equations.

Reads   params.yaml (`generate`).
Writes  three CSVs (equation, operand_1, operation, operand_2, answer) and a summary of how many
        equations of each operation and answer length went into which split.

Every equation of the domain gets a weight (`stages.sampling`). One weighted draw without
replacement, per operation and answer length, is then cut into the three splits: so there are no
duplicates, and the splits are disjoint, by construction.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidParams, reported
from arithmetic.grammar import OPERATIONS, Grammar, answer_length, render
from stages import sampling
from stages.params import Generate, load
from stages.timing import timed

SPLITS = ("train", "validation", "test")

# Of a stratum too small for its share, at most this part goes to training; the rest is split
# evenly, so that short answers are well represented in every split.
LARGEST_TRAINING_PART = 0.6


def quotas(available: dict[int, int], sizes: list[int]) -> dict[int, list[int]]:
    """How many equations of each stratum go into each split.

    Every stratum gets an equal share of every split, as far as it reaches; what a small one
    cannot give is shared among the larger.

    Args:
        available: equations of each stratum (answer length).
        sizes: equations wanted for each split.
    """
    result: dict[int, list[int]] = {}
    wanted = list(sizes)
    strata = sorted(available, key=lambda length: available[length])
    for index, length in enumerate(strata):
        share = [size // (len(strata) - index) for size in wanted]
        if sum(share) > available[length] * LARGEST_TRAINING_PART and index < len(strata) - 1:
            others = (1 - LARGEST_TRAINING_PART) / (len(sizes) - 1)
            parts = [LARGEST_TRAINING_PART] + [others] * (len(sizes) - 1)
            share = [
                min(n, int(available[length] * part)) for n, part in zip(share, parts, strict=True)
            ]
        result[length] = share
        wanted = [size - taken for size, taken in zip(wanted, share, strict=True)]
    return result


def draw(
    grammar: Grammar, operation: str, params: Generate, sizes: list[int], rng: np.random.Generator
) -> list[pd.DataFrame]:
    """One data frame per split for one operation."""
    a, b = grammar.equations(operation)
    numbers = OPERATIONS[operation].compute(a, b)
    stratum = answer_length(numbers[0])
    weights = sampling.weights(grammar, operation, params)
    # Weighted sampling without replacement: the smallest of Exp(1)/w (Efraimidis, Spirakis 2006).
    keys = np.full(len(a), np.inf)
    np.divide(rng.standard_exponential(len(a)), weights, out=keys, where=weights > 0)

    lengths, counts = np.unique(stratum, return_counts=True)
    available = {int(n): int(count) for n, count in zip(lengths, counts, strict=True)}
    picked: list[list[np.ndarray]] = [[] for _ in sizes]
    for length, share in quotas(available, sizes).items():
        if sum(share) > available[length]:
            raise InvalidParams(
                f"generate asks for {sum(sizes)} equations with {operation!r}, more than operands "
                f"up to {grammar.max_operand} can give; lower the sizes or raise "
                "generate.max_operand"
            )
        members = np.flatnonzero(stratum == length)
        order = members[np.argsort(keys[members], kind="stable")[: sum(share)]]
        # The keys are ordered by weight: shuffle, or the heaviest would all be in one split.
        order = rng.permutation(order)
        for split, rows in enumerate(np.split(order, np.cumsum(share)[:-1])):
            picked[split].append(rows)
    return [
        frame(operation, a[rows], b[rows], [column[rows] for column in numbers])
        for rows in (np.concatenate(parts) for parts in picked)
    ]


def frame(operation: str, a: np.ndarray, b: np.ndarray, numbers: list[np.ndarray]) -> pd.DataFrame:
    """The rows of a CSV."""
    first, second = a.tolist(), b.tolist()
    answers = [render(row) for row in zip(*(column.tolist() for column in numbers), strict=True)]
    return pd.DataFrame(
        {
            "equation": [f"{x}{operation}{y}=" for x, y in zip(first, second, strict=True)],
            "operand_1": first,
            "operation": operation,
            "operand_2": second,
            "answer": answers,
        }
    )


def generate(params: Generate) -> dict[str, pd.DataFrame]:
    """The three splits by name, rows shuffled; raises InvalidParams if the domain is too small."""
    rng = np.random.default_rng(params.seed)
    grammar = params.grammar
    totals = (params.train_size, params.validation_size, params.test_size)
    frames: list[list[pd.DataFrame]] = [[] for _ in SPLITS]
    remaining = list(totals)
    for index, operation in enumerate(grammar.operations):
        sizes = [size // (len(grammar.operations) - index) for size in remaining]
        remaining = [size - taken for size, taken in zip(remaining, sizes, strict=True)]
        for parts, part in zip(frames, draw(grammar, operation, params, sizes, rng), strict=True):
            parts.append(part)
    splits = {}
    for name, parts in zip(SPLITS, frames, strict=True):
        joined = pd.concat(parts, ignore_index=True)
        splits[name] = joined.iloc[rng.permutation(len(joined))].reset_index(drop=True)
    return splits


def summary(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Counts by split, operation and answer length: digits of the (first) number."""
    parts = []
    for name, data in splits.items():
        first = data["answer"].str.extract(r"(\d+)", expand=False)
        counts = data.assign(split=name, answer_length=first.str.len())
        parts.append(
            counts.groupby(["split", "operation", "answer_length"], sort=True)
            .size()
            .reset_index(name="equations")
        )
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the training, validation and test data.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, default=Path(f"data/{split}.csv"))
    parser.add_argument("--summary", type=Path, default=Path("metrics/data_summary.csv"))
    arguments = parser.parse_args()
    with reported(), timed("generate", arguments.train):
        splits = generate(load(arguments.params).generate)
        for name, data in splits.items():
            path: Path = getattr(arguments, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            data.to_csv(path, index=False, lineterminator="\n")
            print(f"{path}: {len(data):,} equations")
        arguments.summary.parent.mkdir(parents=True, exist_ok=True)
        summary(splits).to_csv(arguments.summary, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
