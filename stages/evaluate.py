"""evaluate: how often the model is wrong, counted on every equation there is.

Reads   the bundle, the test and training CSVs, params.yaml (`evaluate`).
Writes  metrics/evaluation.json and the exact match by answer length.

The whole domain (a sample, where it has more than 10 million equations: `stages.domain`) goes
through one teacher-forced pass (`stages.certify`). What fails it is decoded
for real and decides the errors; the equations of smallest margin and a random sample are decoded
besides, and everything decoded is decoded by the serving graph too, so that both shortcuts are
checked in every run. The test split is decoded in full.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.errors import reported
from arithmetic.grammar import Grammar
from stages.certify import Equations, Provers
from stages.domain import CONFIDENCE, Chosen, chosen, error_rate_bound
from stages.params import Evaluate, load
from stages.reads import noted
from stages.splits import read_split
from stages.tally import Tally, counts, exact_answers, judge_all
from stages.timing import timed
from stages.torch_setup import cores

DECODED = 5_000  # equations of a task of real decoding


def read_equations(path: Path, grammar: Grammar) -> list[Equations]:
    """A CSV's equations by operation, those that it has; raises InvalidParams as `read_split`."""
    split = read_split(path, grammar)
    return [Equations(name, *split[name]) for name in sorted(split) if len(split[name][0])]


@dataclass
class Checks:
    """How the shortcuts stood up to real decoding, over all operations.

    Attributes:
        decoded: equations that were really decoded, by PyTorch and by the serving graph.
        pass_differs: of those, on how many the pass told something else.
        graph_differs: of those, on how many the graph generated something else.
        edge_errors: of a sampled domain, wrong edge cases.
    """

    decoded: int = 0
    pass_differs: int = 0
    graph_differs: int = 0
    edge_errors: int = 0


def evaluate(
    folder: Path, test: list[Equations], trained_on: list[Equations], params: Evaluate
) -> dict[str, Any]:
    """Everything in evaluation.json; the same for any number of cores."""
    grammar = load_config(folder).grammar
    domain, unseen, on_test, checks = Tally(), Tally(), Tally(), Checks()
    rng = np.random.default_rng(params.seed)
    certified = {
        operation: chosen(grammar, operation, sampled, rng)
        for operation, sampled in zip(
            grammar.operations, evenly(params.sampled_equations, grammar), strict=True
        )
    }
    margins: dict[str, np.ndarray] = {}

    with Provers(folder, cores()) as provers:
        for operation, choice in certified.items():
            print(f"evaluate: certifying {len(choice.equations):,} with {operation}", flush=True)
            margins[operation] = provers.run("margins", choice.equations)
        for operation, rows in picked(margins, params, rng).items():
            every, margin = certified[operation].equations, margins[operation]
            _, lengths = exact_answers(every)
            domain.add(operation, lengths)
            new = never_seen(every, trained_on, grammar)
            unseen.add(operation, lengths[new])

            print(f"evaluate: decoding {len(rows):,} of them, twice", flush=True)
            generated = checked(provers, every[rows], margin[rows], grammar, checks)
            expected, _ = exact_answers(every[rows])
            wrong = domain.judge(every[rows], generated, expected, grammar)
            checks.edge_errors += int(wrong[rows < certified[operation].edges].sum())
            fresh = new[rows]
            kept = [text for text, is_new in zip(expected, fresh, strict=True) if is_new]
            unseen.judge(every[rows][fresh], generated[fresh], kept, grammar)

        greedy = [provers.run("decode", equations, DECODED) for equations in test]
        judge_all(on_test, test, greedy, grammar)
        beam = {}
        if params.beam_width > 1:
            found = [provers.run("beam", part, DECODED, (params.beam_width,)) for part in test]
            beam = {"beam": compared(test, greedy, found, params.beam_width, grammar)}

    report = domain.report()
    for operation, margin in margins.items():
        smallest = rounded_margin(float(margin.min()))
        report["by_operation"][operation]["smallest_margin"] = smallest
    return {
        **report,
        "domain": {"operations": list(grammar.operations), "max_operand": grammar.max_operand},
        "complete": grammar.listed,
        **({} if grammar.listed else {"sampled": sample(certified, domain, checks)}),
        "smallest_margin": rounded_margin(min(float(margin.min()) for margin in margins.values())),
        "decoded": checks.decoded,
        "decoding_differs_from_pass": checks.pass_differs,
        "graph_differs_from_decoding": checks.graph_differs,
        "never_trained_on": {
            **counts(unseen.equations.total(), unseen.errors.total()),
            "first_failures": unseen.failures,
        },
        "test": on_test.report() | beam,
        "first_failures": domain.failures,
        "bundle_sha256": bundle.digest(folder),
        "weights_sha256": bundle.file_digest(folder / bundle.WEIGHTS),
        "decoders_sha256": {
            operation: bundle.file_digest(folder / bundle.decoder(operation))
            for operation in grammar.operations
        },
    }


def evenly(total: int, grammar: Grammar) -> list[int]:
    """A number for each operation, adding up to `total`."""
    count = len(grammar.operations)
    return [total // count + (index < total % count) for index in range(count)]


def never_seen(equations: Equations, trained_on: list[Equations], grammar: Grammar) -> np.ndarray:
    """Which of some equations are not among those of the training: [N] bool."""
    operation = equations.operation
    places = grammar.index(operation, equations.operand_1, equations.operand_2)
    seen = [
        grammar.index(operation, part.operand_1, part.operand_2)
        for part in trained_on
        if part.operation == operation
    ]
    return ~np.isin(places, np.concatenate(seen)) if seen else np.ones(len(equations), bool)


def checked(
    provers: Provers, equations: Equations, margin: np.ndarray, grammar: Grammar, checks: Checks
) -> np.ndarray:
    """Decode for real, by PyTorch and by the serving graph; generated ids [N, T] of PyTorch.

    Args:
        margin: what the pass found for these equations, [N].
    """
    generated = provers.run("decode", equations, DECODED)
    by_graph = provers.run("graph", equations, DECODED)
    operands = equations.operand_1, equations.operand_2
    sequences = layouts.sequences(equations.operation, *operands, grammar.digits)
    reference = sequences[:, layouts.prompt_length(grammar.digits) :]
    if len(equations):
        as_written = (generated == reference).all(1)
        checks.decoded += len(equations)
        checks.graph_differs += int((by_graph != generated).any(1).sum())
        checks.pass_differs += int((as_written != (margin > 0)).sum())
    return generated


def compared(
    test: list[Equations],
    greedy: list[np.ndarray],
    beam: list[np.ndarray],
    width: int,
    grammar: Grammar,
) -> dict[str, Any]:
    """The test split by a beam search: its errors, and how many equations it answers otherwise."""
    tally = Tally()
    judge_all(tally, test, beam, grammar)
    changed = 0
    for part, one, other in zip(test, greedy, beam, strict=True):
        span = layouts.lengths(part.operation, grammar.digits)
        changed += int((one[:, span.scratch :] != other[:, span.scratch :]).any(1).sum())
    summary = counts(tally.equations.total(), tally.errors.total())
    return {"width": width, **summary, "answers_changed": changed}


def sample(certified: dict[str, Chosen], domain: Tally, checks: Checks) -> dict[str, Any]:
    """What a sampled certificate says of the whole domain."""
    edges = sum(choice.edges for choice in certified.values())
    random = domain.equations.total() - edges
    errors = domain.errors.total() - checks.edge_errors
    return {
        "edge_cases": edges,
        "edge_case_errors": checks.edge_errors,
        "random": random,
        "random_errors": errors,
        "error_rate_at_most": error_rate_bound(errors, random),
        "confidence": CONFIDENCE,
    }


def picked(
    margins: dict[str, np.ndarray], params: Evaluate, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Which equations are really decoded, by operation: indices, ascending.

    Every one that fails the pass, those of smallest margin, and a random sample of the domain.
    """
    joined = np.concatenate(list(margins.values()))
    chosen = ~(joined > 0)  # a margin that is no number proves nothing either
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
    parser.add_argument("--reads", type=Path, help="where to note what was read")
    arguments = parser.parse_args()
    with reported(), timed("evaluate", arguments.metrics):
        params = load(arguments.params)
        with noted("evaluate", params, arguments.reads) as check:
            grammar = load_config(arguments.bundle).grammar
            result = evaluate(
                arguments.bundle,
                read_equations(arguments.test, grammar),
                read_equations(arguments.train, grammar),
                params.evaluate,
            )
            check()
            write(result, arguments)
        print(
            f"evaluate: {result['errors']:,} errors in {result['equations']:,} equations, "
            f"smallest margin {result['smallest_margin']}; "
            f"test split {result['test']['exact_match']:.2%}"
        )


def write(result: dict[str, Any], paths: argparse.Namespace) -> None:
    """The certificate as JSON, and the exact match by answer length as CSV."""
    paths.metrics.parent.mkdir(parents=True, exist_ok=True)
    paths.metrics.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = pd.concat(
        [
            by_length(result).assign(equations_of="domain"),
            by_length(result["test"]).assign(equations_of="test"),
        ]
    )
    table.to_csv(paths.by_length, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
