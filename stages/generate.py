"""Generate the equations to train, validate and test on: `python -m stages.generate`.

Reads   params.yaml (`generate`), hard_cases.csv (equations that a model got wrong, oversampled in
        the training split; `make hard-cases` adds those of a service)
Writes  data/train.csv, data/validation.csv, data/test.csv, metrics/data_summary.csv

Every equation of the domain gets a weight (`stages.sampling`). One weighted draw without
replacement, per operation and answer length, is cut into the three splits, so that there are no
duplicates and the splits are disjoint by construction.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.errors import InvalidEquationError, InvalidParamsError, cli_errors
from arithmetic.grammar import OPERATIONS, Equation, Grammar, count_digits, solve
from stages import sampling
from stages.dataset import COLUMNS, SPLITS, split_path
from stages.params import Generate, load_params

HARD_CASES = Path("hard_cases.csv")
SUMMARY = Path("metrics/data_summary.csv")

# Of a stratum too small for its share, at most these parts go to the splits, so that short answers
# are well represented in each.
LARGEST_PARTS = (0.6, 0.2, 0.2)


def quotas(available: dict[int, int], sizes: list[int]) -> dict[int, list[int]]:
    """Return how many equations of each stratum go into each split.

    Every stratum gets an equal share of every split, as far as it reaches; the rest is shared
    among the larger strata.

    Args:
        available: equations of each stratum (answer length).
        sizes: equations wanted for each split.
    """
    result: dict[int, list[int]] = {}
    wanted = list(sizes)
    strata = sorted(available, key=lambda length: available[length])
    for index, length in enumerate(strata):
        share = [size // (len(strata) - index) for size in wanted]
        if sum(share) > available[length] * LARGEST_PARTS[0] and index < len(strata) - 1:
            limits = [int(available[length] * part) for part in LARGEST_PARTS]
            share = list(map(min, share, limits))
        result[length] = share
        wanted = [size - taken for size, taken in zip(wanted, share, strict=True)]
    return result


def draw(
    grammar: Grammar, operation: str, params: Generate, sizes: list[int], rng: np.random.Generator
) -> pd.DataFrame:
    """Draw the equations of one operation, with the `split` of each."""
    a, b, weights = sampling.candidates(grammar, operation, params, sum(sizes), rng)
    stratum = count_digits(OPERATIONS[operation].compute(a, b)[0])
    # Weighted sampling without replacement: the smallest of Exp(1)/w (Efraimidis, Spirakis 2006).
    keys = np.full(len(a), np.inf)
    np.divide(rng.standard_exponential(len(a)), weights, out=keys, where=weights > 0)

    lengths, counts = np.unique(stratum, return_counts=True)
    available = dict(zip(lengths.tolist(), counts.tolist(), strict=True))
    rows, splits = [], []
    for length, share in quotas(available, sizes).items():
        if sum(share) > available[length]:
            raise InvalidParamsError(
                f"generate needs {sum(sizes)} equations with {operation!r}, more than operands up "
                f"to {grammar.max_operand} can give",
                "lower the sizes or raise generate.max_operand",
            )
        members = np.flatnonzero(stratum == length)
        order = members[np.argsort(keys[members], kind="stable")[: sum(share)]]
        # The keys are ordered by weight: shuffle, or the heaviest would all be in one split.
        rows.append(rng.permutation(order))
        splits.append(np.repeat(SPLITS, share))
    chosen = np.concatenate(rows)
    pairs = zip(a[chosen].tolist(), b[chosen].tolist(), strict=True)
    data = frame(Equation(x, operation, y) for x, y in pairs)
    return data.assign(split=np.concatenate(splits))


def frame(equations: Iterable[Equation]) -> pd.DataFrame:
    """Return the rows of a CSV."""
    rows = [(str(e), e.operand_1, e.operation, e.operand_2, solve(e)) for e in equations]
    return pd.DataFrame(rows, columns=["equation", *COLUMNS, "answer"])


def generate(params: Generate, hard_cases: Sequence[Equation] = ()) -> dict[str, pd.DataFrame]:
    """Generate the three splits by name, rows shuffled.

    Args:
        hard_cases: equations of the domain that leave all splits; `hard_case_copies` of each
            are added to the training split.

    Raises:
        InvalidParamsError: the domain is too small.
    """
    rng = np.random.default_rng(params.seed)
    grammar = params.grammar
    remaining, draws = [params.train_size, params.validation_size, params.test_size], []
    for index, operation in enumerate(grammar.operations):
        sizes = [size // (len(grammar.operations) - index) for size in remaining]
        remaining = [size - taken for size, taken in zip(remaining, sizes, strict=True)]
        draws.append(draw(grammar, operation, params, sizes, rng))
    added = frame(hard_cases)
    splits = {}
    drawn = pd.concat(draws).set_index("split")
    for name in SPLITS:
        data = drawn.loc[[name]]
        data = data.iloc[rng.permutation(len(data))]
        data = data[~data["equation"].isin(added["equation"])]
        if name == "train" and len(added):
            data = pd.concat([data, *[added] * params.hard_case_copies])
        splits[name] = data.reset_index(drop=True)
    return splits


def read_hard_cases(grammar: Grammar) -> list[Equation]:
    """Read hard_cases.csv; equations outside the grammar are reported and left out.

    Raises:
        InvalidParamsError: the file has no column `equation`.
    """
    try:
        column = pd.read_csv(HARD_CASES, usecols=["equation"], dtype=str)["equation"]
    except (OSError, ValueError) as error:
        raise InvalidParamsError(
            f"cannot read hard cases from {HARD_CASES}: {error}",
            "restore it with git, or write one line into it: equation",
        ) from error
    equations: dict[Equation, None] = {}
    for text in column:
        try:
            equations[grammar.parse(str(text))] = None
        except InvalidEquationError as error:
            print(f"{HARD_CASES}: leaving out {text!r}: {error}")
    return list(equations)


def summarize(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count equations by split, operation and answer length (digits of the first number)."""
    data = pd.concat(splits, names=["split"]).reset_index("split")
    data["answer_length"] = data["answer"].str.extract(r"(\d+)", expand=False).str.len()
    groups = data.groupby(["split", "operation", "answer_length"], sort=True)
    return groups.size().reset_index(name="equations")


def main() -> None:
    """Run the stage."""
    with cli_errors():
        params = load_params().generate
        splits = generate(params, read_hard_cases(params.grammar))
        for name in SPLITS:
            path = split_path(name)
            path.parent.mkdir(exist_ok=True)
            splits[name].to_csv(path, index=False, lineterminator="\n")
            print(f"{path}: {len(splits[name]):,} equations")
        SUMMARY.parent.mkdir(exist_ok=True)
        summarize(splits).to_csv(SUMMARY, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
