"""generate: params to train, validation and test equations.

Reads   params.yaml (`generate`), and hard cases: equations that a served model got wrong
        (`make hard-cases`), which go into the training split.
Writes  three CSVs (equation, operand_1, operation, operand_2, answer) and a summary of how many
        equations of each operation and answer length went into which split.

Every equation of the domain gets a weight (`stages.sampling`; of a domain of more than 10 million,
every one of a million candidates). One weighted draw without
replacement, per operation and answer length, is then cut into the three splits: so there are no
duplicates, and the splits are disjoint, by construction.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidEquation, InvalidParams, reported
from arithmetic.grammar import OPERATIONS, Grammar, answer_length, render
from stages import sampling
from stages.params import Generate, load
from stages.reads import noted
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
    a, b, weights = sampling.candidates(grammar, operation, params, sum(sizes), rng)
    numbers = OPERATIONS[operation].compute(a, b)
    stratum = answer_length(numbers[0])
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


def generate(params: Generate, hard_cases: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """The three splits by name, rows shuffled.

    Args:
        hard_cases: equations (`951+11=`) that training must hold: they leave the other splits, and
            those that were not drawn are added to `train_size`.

    Raises:
        InvalidParams: the domain is too small, or a hard case is outside it.
    """
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
    return with_hard_cases(splits, grammar, hard_cases) if hard_cases else splits


def with_hard_cases(
    splits: dict[str, pd.DataFrame], grammar: Grammar, texts: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """The splits with every hard case in training and in no other."""
    try:
        hard = list(dict.fromkeys(grammar.parse(text) for text in texts))
    except InvalidEquation as error:
        raise InvalidParams(f"a hard case is outside the domain of generate: {error}") from error
    parts = []
    for operation in grammar.operations:
        rows = [(one.operand_1, one.operand_2) for one in hard if one.operation == operation]
        if rows:
            a, b = np.array(rows, np.int64).T
            numbers = OPERATIONS[operation].compute(a, b)
            parts.append(frame(operation, a, b, list(numbers)))
    added = pd.concat(parts, ignore_index=True)
    kept = {name: data[~data["equation"].isin(added["equation"])] for name, data in splits.items()}
    kept["train"] = pd.concat([kept["train"], added])
    return {name: data.reset_index(drop=True) for name, data in kept.items()}


def read_hard_cases(path: Path) -> list[str]:
    """The column `equation` of a CSV; what else it says of their origin is not read.

    Raises:
        InvalidParams: the file is missing or has no such column.
    """
    try:
        column = pd.read_csv(path, usecols=["equation"], dtype=str)["equation"]
    except (OSError, ValueError) as error:
        raise InvalidParams(
            f"{path} is not a list of hard cases ({error}); restore it with git, or give it the "
            "one line `equation`"
        ) from error
    return [str(text) for text in column]


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


def write(splits: dict[str, pd.DataFrame], paths: argparse.Namespace) -> None:
    """The splits and their summary as CSV."""
    for name, data in splits.items():
        path: Path = getattr(paths, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        data.to_csv(path, index=False, lineterminator="\n")
        print(f"{path}: {len(data):,} equations")
    paths.summary.parent.mkdir(parents=True, exist_ok=True)
    summary(splits).to_csv(paths.summary, index=False, lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the training, validation and test data.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, default=Path(f"data/{split}.csv"))
    parser.add_argument("--summary", type=Path, default=Path("metrics/data_summary.csv"))
    parser.add_argument("--hard-cases", type=Path, help="CSV of equations that training must hold")
    parser.add_argument("--reads", type=Path, help="where to note what was read")
    arguments = parser.parse_args()
    with reported(), timed("generate", arguments.train):
        params = load(arguments.params)
        with noted("generate", params, arguments.reads) as check:
            hard = read_hard_cases(arguments.hard_cases) if arguments.hard_cases else []
            splits = generate(params.generate, hard)
            check()
            write(splits, arguments)


if __name__ == "__main__":
    main()
