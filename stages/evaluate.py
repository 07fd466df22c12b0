"""Count the wrong answers among all equations: `python -m stages.evaluate`.

Reads   params.yaml (`evaluate`), model/, data/train.csv, data/test.csv
Writes  metrics/evaluation.json (five headline figures), reports/evaluation.json (everything),
        metrics/exact_match_by_length.csv

The whole domain (a sample of a very large one: `stages.domain`) is certified by one teacher-forced
pass (`stages.certify`). What fails it is decoded for real and decides the errors; the equations of
smallest margin and a random sample are decoded besides, by PyTorch and by the ONNX decoder, so
that both shortcuts are checked in every run. The test split is decoded in full.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arithmetic import artifacts, formats
from arithmetic.errors import cli_errors
from arithmetic.grammar import OPERATIONS, Grammar, Operands, answer_length, render
from stages import MODEL, stop_if_orphaned
from stages.certify import (
    Equations,
    compute_margins,
    decode,
    decode_by_beam,
    run_over_shards,
)
from stages.dataset import read_split
from stages.domain import CONFIDENCE, bound_error_rate, choose_equations
from stages.params import Evaluate, load_params

METRICS = Path("metrics/evaluation.json")
REPORT = Path("reports/evaluation.json")
BY_LENGTH = Path("metrics/exact_match_by_length.csv")
SHARD = 20_000  # equations of one certification task
DECODED_SHARD = 5_000
FIRST_FAILURES = 100
OUTCOMES = list(formats.Outcome._fields)
COUNTED = {  # in the report, besides the wrong answers
    "hallucinations": "hallucination",
    "infinite_generation": "infinite_generation",
    "out_of_range": "out_of_range",
}


def evaluate(
    test: dict[str, Operands], trained_on: dict[str, Operands], params: Evaluate
) -> dict[str, Any]:
    """Return everything in reports/evaluation.json; the same for any number of workers."""
    config = artifacts.load_config(MODEL)
    grammar, rng = config.get_grammar(), np.random.default_rng(params.seed)
    domain = list_domain(grammar, trained_on, params, rng)
    margins = run_over_shards(
        compute_margins, MODEL, to_equations(domain), SHARD, "evaluate: certify"
    )
    domain["margin"] = np.concatenate(margins)
    rows = choose_decoded(domain["margin"].to_numpy(), params, rng)
    decoded = decode_and_classify(domain.loc[rows], grammar)
    domain = domain.join(decoded).fillna(dict.fromkeys(OUTCOMES, False))
    domain[OUTCOMES] = domain[OUTCOMES].astype(bool)
    in_test = decode_and_classify(build_frame(test, grammar), grammar, keep_operands=True)

    by_operation = domain.groupby("operation", sort=False)
    new = domain[~domain["is_trained_on"]]
    return {
        "model_digest": artifacts.digest(MODEL),
        "domain": config.grammar.model_dump(),
        "complete": grammar.is_listed,
        **count(domain),
        "minimum_margin": round_margin(domain),
        **count_outcomes(domain),
        "by_operation": {
            name: {**count(group), "minimum_margin": round_margin(group)}
            for name, group in by_operation
        },
        "by_answer_length": by_length(domain),
        "decoded": len(decoded),
        "decoding_differs_from_pass": int(
            (decoded["is_reference"] != (domain.loc[rows, "margin"] > 0)).sum()
        ),
        "graph_differs_from_decoding": int(decoded["graph_differs"].sum()),
        "never_trained_on": count(new),
        "test": {
            **count(in_test),
            **count_outcomes(in_test),
            "by_answer_length": by_length(in_test),
            **search_beams(test, in_test, params, grammar),
        },
        **({} if grammar.is_listed else {"sampled": describe_sample(domain)}),
        "first_failures": list_failures(domain),
        "decoders_sha256": {
            fmt.name: artifacts.file_digest(MODEL / artifacts.decoder_path(fmt.name))
            for fmt in formats.get_formats(grammar.operations)
        },
    }


def build_frame(operands: dict[str, Operands], grammar: Grammar) -> pd.DataFrame:
    """Return equations as rows: operation, a, b, expected (text), answer_length."""
    frames = []
    for operation, (a, b) in operands.items():
        numbers = OPERATIONS[operation].compute(a, b)
        lengths = answer_length(numbers[0])
        frames.append(
            pd.DataFrame({"operation": operation, "a": a, "b": b, "answer_length": lengths})
        )
    return pd.concat(frames, ignore_index=True)


def list_domain(
    grammar: Grammar, trained_on: dict[str, Operands], params: Evaluate, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the equations to certify, with `is_edge_case` and `is_trained_on`."""
    count_of = len(grammar.operations)
    frames = []
    for index, operation in enumerate(grammar.operations):
        share = (params.sampled_equations + index) // count_of
        (a, b), edges = choose_equations(grammar, operation, share, rng)
        frame = build_frame({operation: (a, b)}, grammar)
        frame["is_edge_case"] = np.arange(len(a)) < edges
        places = grammar.index(operation, *trained_on[operation])
        frame["is_trained_on"] = np.isin(grammar.index(operation, a, b), places)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def to_equations(frame: pd.DataFrame) -> list[Equations]:
    """Return the rows by operation, in their order."""
    groups = frame.groupby("operation", sort=False)
    return [Equations(str(o), g["a"].to_numpy(), g["b"].to_numpy()) for o, g in groups]


def choose_decoded(margins: np.ndarray, params: Evaluate, rng: np.random.Generator) -> np.ndarray:
    """Return the rows to decode for real, ascending.

    Every row that fails the pass (a NaN margin fails), those of smallest margin, random ones.
    """
    chosen = ~(margins > 0)
    chosen[np.argsort(margins, kind="stable")[: params.lowest_margins]] = True
    size = min(params.random_sample, len(margins))
    chosen[rng.choice(len(margins), size, replace=False)] = True
    return np.flatnonzero(chosen)


def decode_and_classify(
    rows: pd.DataFrame, grammar: Grammar, keep_operands: bool = False
) -> pd.DataFrame:
    """Decode rows by PyTorch and by the ONNX decoder, and classify PyTorch's answers.

    Returns the rows' index with the columns of `Outcome`, `predicted`, `expected`, `is_reference`
    (the reference sequence was generated) and `graph_differs`.
    """
    parts = []
    equations = to_equations(rows)
    outputs = run_over_shards(decode, MODEL, equations, DECODED_SHARD, "evaluate: decode")
    groups = rows.groupby("operation", sort=False)
    for one, generated, (_, group) in zip(equations, outputs, groups, strict=True):
        by_torch, by_onnx = generated[:, 0], generated[:, 1]
        reference = formats.encode_sequences(*one, grammar.digits)[:, -by_torch.shape[1] :]
        part = classify_rows(one, by_torch, group.index, grammar)
        part["is_reference"] = (by_torch == reference).all(1)
        part["graph_differs"] = (by_torch != by_onnx).any(1)
        parts.append(part)
    result = pd.concat(parts)
    return rows.join(result) if keep_operands else result


def classify_rows(
    equations: Equations, generated: np.ndarray, index: pd.Index, grammar: Grammar
) -> pd.DataFrame:
    """Return the outcomes of generated ids [N, T], with predicted and expected text."""
    operation, a, b = equations
    numbers = OPERATIONS[operation].compute(a, b)
    expected = [render(row) for row in zip(*(n.tolist() for n in numbers), strict=True)]
    answers = [formats.parse_answer(operation, ids, grammar.digits) for ids in generated.tolist()]
    outcomes = [
        formats.classify(answer, text, operation, grammar)
        for answer, text in zip(answers, expected, strict=True)
    ]
    frame = pd.DataFrame(outcomes, index=index, columns=OUTCOMES)
    return frame.assign(predicted=[answer.text for answer in answers], expected=expected)


def count(rows: pd.DataFrame) -> dict[str, Any]:
    """Return errors, equations and exact match to eight places: one error in millions shows."""
    errors, equations = int(rows["wrong"].sum()), len(rows)
    exact = round(1 - errors / equations, 8) if equations else None
    return {"errors": errors, "equations": equations, "exact_match": exact}


def count_outcomes(rows: pd.DataFrame) -> dict[str, int]:
    """Return how often each kind of wrong answer occurs."""
    return {name: int(rows[column].sum()) for name, column in COUNTED.items()}


def by_length(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the counts by answer length."""
    return {str(length): count(group) for length, group in rows.groupby("answer_length")}


def round_margin(rows: pd.DataFrame) -> float:
    """Return the minimum margin to two places; NaN if any is NaN."""
    return round(float(rows["margin"].min(skipna=False)), 2)


def describe_sample(domain: pd.DataFrame) -> dict[str, Any]:
    """Return the bound that a sampled certification gives for the whole domain."""
    edges = domain["is_edge_case"]
    random_errors = int(domain.loc[~edges, "wrong"].sum())
    return {
        "edge_cases": int(edges.sum()),
        "edge_case_errors": int(domain.loc[edges, "wrong"].sum()),
        "random": int((~edges).sum()),
        "random_errors": random_errors,
        "error_rate_bound": bound_error_rate(random_errors, int((~edges).sum())),
        "confidence": CONFIDENCE,
    }


def list_failures(domain: pd.DataFrame) -> list[dict[str, str]]:
    """Return the first wrong answers."""
    wrong = domain[domain["wrong"]].head(FIRST_FAILURES)
    equation = wrong["a"].astype(str) + wrong["operation"] + wrong["b"].astype(str) + "="
    columns = {"equation": equation, "predicted": wrong["predicted"], "expected": wrong["expected"]}
    return pd.DataFrame(columns).to_dict("records")


def search_beams(
    test: dict[str, Operands], greedy: pd.DataFrame, params: Evaluate, grammar: Grammar
) -> dict[str, Any]:
    """Return the errors of a beam search on the test split, nothing for a width of 1."""
    if params.beam_width == 1:
        return {}
    equations = [Equations(operation, a, b) for operation, (a, b) in test.items() if len(a)]
    task = partial(decode_by_beam, width=params.beam_width)
    outputs = run_over_shards(task, MODEL, equations, DECODED_SHARD, "evaluate: beam search")
    groups = greedy.groupby("operation", sort=False)
    rows = pd.concat(
        classify_rows(one, generated, group.index, grammar)
        for one, generated, (_, group) in zip(equations, outputs, groups, strict=True)
    )
    changed = int((rows["predicted"] != greedy["predicted"]).sum())
    return {"beam": {"width": params.beam_width, **count(rows), "answers_changed": changed}}


def write(report: dict[str, Any]) -> None:
    """Write metrics, report and plot data."""
    names = ("errors", "equations", "exact_match", "minimum_margin")
    metrics = {name: report[name] for name in names}
    metrics["test_exact_match"] = report["test"]["exact_match"]
    for path, content in ((METRICS, metrics), (REPORT, report)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [
        {"answer_length": length, **counts, "equations_of": name}
        for name, part in (("domain", report), ("test", report["test"]))
        for length, counts in part["by_answer_length"].items()
    ]
    pd.DataFrame(rows).to_csv(BY_LENGTH, index=False, lineterminator="\n")


def main() -> None:
    """Run the stage."""
    with cli_errors():
        params = load_params()
        grammar = artifacts.load_config(MODEL).get_grammar()
        report = evaluate(
            read_split("test", grammar), read_split("train", grammar), params.evaluate
        )
        stop_if_orphaned()
        write(report)
        print(
            f"evaluate: {report['errors']:,} errors in {report['equations']:,} equations, "
            f"minimum margin {report['minimum_margin']}"
        )


if __name__ == "__main__":
    main()
