"""evaluate: how often the model is wrong, counted on every equation there is.

Reads   the bundle, the test and training CSVs, params.yaml (`evaluate`).
Writes  metrics/evaluation.json and the exact match by answer length.

The whole domain goes through one teacher-forced pass (`stages.certify`). What fails it is decoded
for real and decides the errors; the equations of smallest margin and a random sample are decoded
besides, and everything decoded is decoded by the serving graph too, so that both shortcuts are
checked in every run. The test split is decoded in full.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.errors import InvalidParams, reported
from arithmetic.grammar import OPERATIONS, Grammar, answer_length, render
from stages.certify import Equations, Provers
from stages.params import Evaluate, load
from stages.timing import timed
from stages.torch_setup import cores

FAILURES_LISTED = 100


@dataclass
class Tally:
    """Counts over a set of equations; a group's exact match is 1 - errors / equations."""

    equations: Counter[tuple[str, int]] = field(default_factory=Counter)  # by operation, length
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    hallucinations: int = 0
    infinite_generation: int = 0
    out_of_range: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, operation: str, lengths: np.ndarray) -> None:
        """Equations by their answers' lengths [N]."""
        for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
            self.equations[operation, int(length)] += int(count)

    def judge(
        self, equations: Equations, generated: np.ndarray, expected: list[str], grammar: Grammar
    ) -> np.ndarray:
        """Compare decoded answers with the exact ones; which are wrong: [N] bool."""
        lowest, highest = answer_range(equations.operation, grammar)
        wrong = np.zeros(len(equations), bool)
        for row, right in enumerate(expected):
            answer = layouts.read_answer(equations.operation, generated[row], grammar.digits)
            self.hallucinations += not answer.is_integer
            self.infinite_generation += not answer.ended
            if answer.is_integer and not lowest <= first_number(answer.text) <= highest:
                self.out_of_range += 1
            if answer.text == right and answer.ended:
                continue
            wrong[row] = True
            self.errors[equations.operation, len(str(abs(first_number(right))))] += 1
            if len(self.failures) < FAILURES_LISTED:
                a, b = equations.operand_1[row], equations.operand_2[row]
                asked = f"{a}{equations.operation}{b}="
                self.failures.append({"equation": asked, "expected": right, "answer": answer.text})
        return wrong

    def report(self) -> dict[str, Any]:
        """The counts as they stand in evaluation.json."""
        by_operation: dict[str, Counter[str]] = {}
        by_length: dict[str, Counter[str]] = {}
        for (operation, length), count in sorted(self.equations.items()):
            wrong = self.errors[operation, length]
            for group in (
                by_operation.setdefault(operation, Counter()),
                by_length.setdefault(str(length), Counter()),
            ):
                group.update(equations=count, errors=wrong)
        return {
            **counts(self.equations.total(), self.errors.total()),
            "hallucinations": self.hallucinations,
            "infinite_generation": self.infinite_generation,
            "out_of_range": self.out_of_range,
            "by_operation": {key: counts(**by_operation[key]) for key in sorted(by_operation)},
            "by_answer_length": {key: counts(**by_length[key]) for key in sorted(by_length)},
        }


def counts(equations: int, errors: int) -> dict[str, Any]:
    """Exact match is rounded to eight places: one error in the domain shows, noise does not."""
    exact = round(1 - errors / equations, 8) if equations else None
    return {"exact_match": exact, "errors": errors, "equations": equations}


def first_number(answer: str) -> int:
    """The number of an answer, of a division its quotient."""
    return int(answer.split("r")[0])


def answer_range(operation: str, grammar: Grammar) -> tuple[int, int]:
    """The smallest and largest exact (first) number, from the corners of an operation's domain."""
    edges = np.array([0, grammar.max_operand])
    seconds = np.array([OPERATIONS[operation].smallest_operand_2, grammar.max_operand])
    numbers = OPERATIONS[operation].compute(*(x.ravel() for x in np.meshgrid(edges, seconds)))
    return int(numbers[0].min()), int(numbers[0].max())


def exact_answers(equations: Equations) -> tuple[list[str], np.ndarray]:
    """Exact answers as text, and their lengths [N]."""
    numbers = OPERATIONS[equations.operation].compute(equations.operand_1, equations.operand_2)
    texts = [render(row) for row in zip(*(n.tolist() for n in numbers), strict=True)]
    return texts, answer_length(numbers[0])


def read_equations(path: Path, grammar: Grammar) -> list[Equations]:
    """A CSV's equations by operation; raises InvalidParams if it is not data of this domain."""
    try:
        data = pd.read_csv(path, usecols=["operand_1", "operation", "operand_2"])
    except (OSError, ValueError) as error:
        raise InvalidParams(f"{path} is not data of `generate` ({error}); run dvc repro") from error
    if data[["operand_1", "operand_2"]].to_numpy().max() > grammar.max_operand or not set(
        data["operation"]
    ) <= set(grammar.operations):
        raise InvalidParams(f"{path} holds equations outside the bundle's grammar; run dvc repro")
    return [
        Equations(
            str(operation),
            rows["operand_1"].to_numpy(np.int64),
            rows["operand_2"].to_numpy(np.int64),
        )
        for operation, rows in data.groupby("operation", sort=True)
    ]


def evaluate(
    folder: Path, test: list[Equations], trained_on: list[Equations], params: Evaluate
) -> dict[str, Any]:
    """Everything in evaluation.json; the same for any number of cores."""
    grammar = load_config(folder).grammar
    domain, unseen, on_test = Tally(), Tally(), Tally()
    rng = np.random.default_rng(params.seed)
    margins: dict[str, float] = {}
    decoded = graph_differs = pass_differs = 0

    with Provers(folder, cores()) as provers:
        all_margins = {}
        for operation in grammar.operations:
            equations = Equations(operation, *grammar.equations(operation))
            print(f"evaluate: certifying {len(equations):,} equations with {operation}", flush=True)
            all_margins[operation] = provers.run("margins", equations)
        for operation, checked in picked(all_margins, params, rng).items():
            every = Equations(operation, *grammar.equations(operation))
            margin = all_margins[operation]
            margins[operation] = float(margin.min())
            _, lengths = exact_answers(every)
            domain.add(operation, lengths)
            new = np.ones(len(every), bool)
            for part in trained_on:
                if part.operation == operation:
                    new[grammar.index(operation, part.operand_1, part.operand_2)] = False
            unseen.add(operation, lengths[new])

            equations = every[checked]
            print(f"evaluate: decoding {len(equations):,} of them, twice", flush=True)
            generated = provers.run("decode", equations, 5_000)
            graph_differs += int((provers.run("graph", equations, 5_000) != generated).any(1).sum())
            decoded += len(equations)
            reference = layouts.sequences(
                operation, equations.operand_1, equations.operand_2, grammar.digits
            )[:, layouts.prompt_length(grammar.digits) :]
            as_written = (generated[:, : reference.shape[1]] == reference).all(1)
            pass_differs += int((as_written != (margin[checked] > 0)).sum())
            expected, _ = exact_answers(equations)
            domain.judge(equations, generated, expected, grammar)
            fresh = new[checked]
            kept = [text for text, is_new in zip(expected, fresh, strict=True) if is_new]
            unseen.judge(equations[fresh], generated[fresh], kept, grammar)

        for equations in test:
            expected, lengths = exact_answers(equations)
            on_test.add(equations.operation, lengths)
            generated = provers.run("decode", equations, 5_000)
            on_test.judge(equations, generated, expected, grammar)

    report = domain.report()
    for operation, smallest in margins.items():
        report["by_operation"][operation]["smallest_margin"] = rounded_margin(smallest)
    return {
        **report,
        "domain": {"operations": list(grammar.operations), "max_operand": grammar.max_operand},
        "complete": True,
        "smallest_margin": rounded_margin(min(margins.values())),
        "decoded": decoded,
        "decoding_differs_from_pass": pass_differs,
        "graph_differs_from_decoding": graph_differs,
        "never_trained_on": {
            **counts(unseen.equations.total(), unseen.errors.total()),
            "first_failures": unseen.failures,
        },
        "test": on_test.report(),
        "first_failures": domain.failures,
        "bundle_sha256": bundle.digest(folder),
        "weights_sha256": bundle.file_digest(folder / bundle.WEIGHTS),
        "decoders_sha256": {
            operation: bundle.file_digest(folder / bundle.decoder(operation))
            for operation in grammar.operations
        },
    }


def picked(
    margins: dict[str, np.ndarray], params: Evaluate, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Which equations are really decoded, by operation: indices, ascending.

    Every one that fails the pass, those of smallest margin, and a random sample of the domain.
    """
    joined = np.concatenate(list(margins.values()))
    chosen = joined <= 0
    chosen[np.argsort(joined, kind="stable")[: params.lowest_margins]] = True
    chosen[rng.choice(len(joined), min(params.random_sample, len(joined)), replace=False)] = True
    ends = np.cumsum([len(part) for part in margins.values()])[:-1]
    parts = np.split(chosen, ends)
    return {operation: np.flatnonzero(part) for operation, part in zip(margins, parts, strict=True)}


def rounded_margin(margin: float) -> float:
    """Two decimals: far coarser than any rounding, fine enough to judge by."""
    return round(margin, 2)


def by_length(tally: dict[str, Any]) -> pd.DataFrame:
    """The plot's data."""
    rows = [{"answer_length": int(n), **group} for n, group in tally["by_answer_length"].items()]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate the bundle on its whole domain.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--test", type=Path, default=Path("data/test.csv"))
    parser.add_argument("--train", type=Path, default=Path("data/train.csv"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/evaluation.json"))
    parser.add_argument("--by-length", type=Path, default=Path("metrics/exact_match_by_length.csv"))
    arguments = parser.parse_args()
    with reported(), timed("evaluate", arguments.metrics):
        params = load(arguments.params).evaluate
        grammar = load_config(arguments.bundle).grammar
        result = evaluate(
            arguments.bundle,
            read_equations(arguments.test, grammar),
            read_equations(arguments.train, grammar),
            params,
        )
        arguments.metrics.parent.mkdir(parents=True, exist_ok=True)
        arguments.metrics.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        table = pd.concat(
            [
                by_length(result).assign(equations_of="domain"),
                by_length(result["test"]).assign(equations_of="test"),
            ]
        )
        table.to_csv(arguments.by_length, index=False, lineterminator="\n")
        print(
            f"evaluate: {result['errors']:,} errors in {result['equations']:,} equations, "
            f"smallest margin {result['smallest_margin']}; "
            f"test split {result['test']['exact_match']:.2%}"
        )


if __name__ == "__main__":
    main()
