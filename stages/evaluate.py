"""Count the wrong answers among all equations: `python -m stages.evaluate`.

Reads   params.yaml (`evaluate`), model/, data/train.csv, data/test.csv
Writes  metrics/evaluation.json (five headline figures), reports/evaluation.json (everything),
        metrics/exact_match_by_length.csv, metrics/margin_by_carry_chain.csv,
        metrics/error_map.csv

The whole domain (a sample of a very large one: `stages.domain`) is certified by one teacher-forced
pass (`stages.certify`). The equations that fail it are decoded and decide the errors. Those of
smallest margin and a random sample are decoded besides, by PyTorch and by the ONNX decoder, which
checks the pass and the decoder in every run. The test split is decoded in full.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arithmetic import artifacts, formats
from arithmetic.errors import cli_errors
from arithmetic.grammar import Equation, Grammar, Operands, solve
from stages import MODEL
from stages.certify import OUTCOMES, compute_margins, decode, decode_by_beam, run_over_shards
from stages.dataset import build_frame, read_split
from stages.domain import CONFIDENCE, bound_error_rate, choose_equations, longest_carry_chain
from stages.params import Evaluate, load_params

METRICS = Path("metrics/evaluation.json")
REPORT = Path("reports/evaluation.json")
BY_LENGTH = Path("metrics/exact_match_by_length.csv")
BY_CHAIN = Path("metrics/margin_by_carry_chain.csv")
ERROR_MAP = Path("metrics/error_map.csv")
MAP_BINS = 20  # at most, of each operand
SHARD = 20_000  # equations of one certification task
DECODED_SHARD = 500
FIRST_FAILURES = 100


def evaluate(
    test: dict[str, Operands], trained_on: dict[str, Operands], params: Evaluate
) -> tuple[dict[str, Any], dict[Path, pd.DataFrame]]:
    """Return everything in reports/evaluation.json, and the plots' data by file.

    Both are the same for any number of workers.
    """
    config = artifacts.load_config(MODEL)
    grammar, rng = config.get_grammar(), np.random.default_rng(params.seed)
    domain = list_domain(grammar, trained_on, params, rng)
    domain = domain.join(run_over_shards(compute_margins, MODEL, domain, SHARD, "certify"))
    rows = choose_decoded(domain["margin"].to_numpy(), params, rng)
    decoded = run_over_shards(decode, MODEL, domain.loc[rows], DECODED_SHARD, "decode")
    domain = domain.join(decoded)
    domain[OUTCOMES] = domain[OUTCOMES].eq(True)  # NaN where an equation was not decoded
    in_test = build_frame(test)
    in_test = in_test.join(run_over_shards(decode, MODEL, in_test, DECODED_SHARD, "decode"))

    report = {
        "model_digest": artifacts.digest(MODEL),
        "domain": config.grammar.model_dump(),
        "complete": grammar.is_listed,
        **count(domain),
        "minimum_margin": round_margin(domain),
        **count_outcomes(domain),
        "by_operation": {
            name: {**count(group), "minimum_margin": round_margin(group)}
            for name, group in domain.groupby("operation", sort=False)
        },
        "by_answer_length": by_length(domain),
        "decoded": len(decoded),
        "decoding_differs_from_pass": int(
            (decoded["is_reference"] != (domain.loc[rows, "margin"] > 0)).sum()
        ),
        "graph_differs_from_decoding": int(decoded["graph_differs"].sum()),
        "never_trained_on": count(domain[~domain["is_trained_on"]]),
        "test": {
            **count(in_test),
            **count_outcomes(in_test),
            "by_answer_length": by_length(in_test),
            **search_beams(in_test, params.beam_width),
        },
        **({} if grammar.is_listed else {"sampled": describe_sample(domain)}),
        "first_failures": list_failures(domain),
        "decoders_sha256": {
            fmt.name: artifacts.file_digest(MODEL / artifacts.decoder_path(fmt.name))
            for fmt in formats.get_formats(grammar.operations)
        },
    }
    plots = {
        BY_LENGTH: list_lengths(report),
        BY_CHAIN: measure_carry_chains(domain, grammar),
        ERROR_MAP: map_errors(domain, grammar),
    }
    return report, plots


def list_domain(
    grammar: Grammar, trained_on: dict[str, Operands], params: Evaluate, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the equations to certify, with `is_edge_case` and `is_trained_on`."""
    chosen, is_edge_case, is_trained_on = {}, [], []
    for index, operation in enumerate(grammar.operations):
        share = (params.sampled_equations + index) // len(grammar.operations)
        chosen[operation], edges = choose_equations(grammar, operation, share, rng)
        places = grammar.index(operation, *chosen[operation])
        is_edge_case.append(np.arange(len(places)) < edges)
        trained = grammar.index(operation, *trained_on[operation])
        is_trained_on.append(np.isin(places, trained))
    flags = {"is_edge_case": is_edge_case, "is_trained_on": is_trained_on}
    return build_frame(chosen).assign(**{name: np.concatenate(f) for name, f in flags.items()})


def choose_decoded(margins: np.ndarray, params: Evaluate, rng: np.random.Generator) -> np.ndarray:
    """Return the rows to decode, ascending.

    All that fail the pass (a NaN margin fails), those of smallest margin, and random ones.
    """
    chosen = ~(margins > 0)
    chosen[np.argsort(margins, kind="stable")[: params.lowest_margins]] = True
    size = min(params.random_sample, len(margins))
    chosen[rng.choice(len(margins), size, replace=False)] = True
    return np.flatnonzero(chosen)


def count(rows: pd.DataFrame) -> dict[str, Any]:
    """Return errors, equations and exact match to eight places: one error in millions shows."""
    errors, equations = int(rows["wrong"].sum()), len(rows)
    exact = round(1 - errors / equations, 8) if equations else None
    return {"errors": errors, "equations": equations, "exact_match": exact}


def count_outcomes(rows: pd.DataFrame) -> dict[str, int]:
    """Return how often each kind of wrong answer occurs."""
    return {
        "hallucinations": int(rows["hallucination"].sum()),
        "infinite_generation": int(rows["infinite_generation"].sum()),
        "out_of_range": int(rows["out_of_range"].sum()),
    }


def by_length(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the counts by answer length."""
    return {str(length): count(group) for length, group in rows.groupby("answer_length")}


def list_lengths(report: dict[str, Any]) -> pd.DataFrame:
    """Return the report's counts by answer length as rows."""
    rows = [
        {"answer_length": length, **counts, "equations_of": name}
        for name, part in (("domain", report), ("test", report["test"]))
        for length, counts in part["by_answer_length"].items()
    ]
    return pd.DataFrame(rows)


def measure_carry_chains(domain: pd.DataFrame, grammar: Grammar) -> pd.DataFrame:
    """Return the minimum margin by the longest carry chain, of the operations with carries."""
    rows = []
    for operation, group in domain[domain["operation"].isin(["+", "-"])].groupby("operation"):
        operands = group["a"].to_numpy(), group["b"].to_numpy()
        chains = longest_carry_chain(str(operation), *operands, grammar.digits)
        for length, part in group.groupby(chains):
            counts = {"minimum_margin": round_margin(part), "equations": len(part)}
            rows.append({"operation": operation, "carry_chain": length, **counts})
    return pd.DataFrame(rows, columns=["operation", "carry_chain", "minimum_margin", "equations"])


def map_errors(domain: pd.DataFrame, grammar: Grammar) -> pd.DataFrame:
    """Return errors and equations in bins of the operands, each named by its smallest operand."""
    width = -(-(grammar.max_operand + 1) // MAP_BINS)
    bins = domain.assign(operand_1=domain["a"] // width, operand_2=domain["b"] // width)
    groups = bins.groupby(["operation", "operand_1", "operand_2"])["wrong"]
    counts = groups.agg(errors="sum", equations="size").reset_index()
    counts[["operand_1", "operand_2"]] *= width
    return counts.assign(width=width)


def round_margin(rows: pd.DataFrame) -> float:
    """Return the minimum margin to two places; NaN if any is NaN."""
    return round(float(rows["margin"].min(skipna=False)), 2)


def describe_sample(domain: pd.DataFrame) -> dict[str, Any]:
    """Return the bound that a sampled certification gives for the whole domain."""
    edges, random = domain[domain["is_edge_case"]], domain[~domain["is_edge_case"]]
    random_errors = int(random["wrong"].sum())
    return {
        "edge_cases": len(edges),
        "edge_case_errors": int(edges["wrong"].sum()),
        "random": len(random),
        "random_errors": random_errors,
        "error_rate_bound": bound_error_rate(random_errors, len(random)),
        "confidence": CONFIDENCE,
    }


def list_failures(domain: pd.DataFrame) -> list[dict[str, str]]:
    """Return the first wrong answers."""
    wrong = domain[domain["wrong"]].head(FIRST_FAILURES)
    failures = []
    for row in wrong.itertuples():
        equation = Equation(row.a, row.operation, row.b)
        answers = {"predicted": row.predicted, "expected": solve(equation)}
        failures.append({"equation": str(equation), **answers})
    return failures


def search_beams(greedy: pd.DataFrame, width: int) -> dict[str, Any]:
    """Return the errors of a beam search over classified rows, nothing for a width of 1."""
    if width == 1:
        return {}
    task = partial(decode_by_beam, width=width)
    rows = run_over_shards(task, MODEL, greedy, DECODED_SHARD, "beam search")
    changed = int((rows["predicted"] != greedy["predicted"]).sum())
    return {"beam": {"width": width, **count(rows), "answers_changed": changed}}


def write(report: dict[str, Any], plots: dict[Path, pd.DataFrame]) -> None:
    """Write metrics, report and the plots' data."""
    names = ("errors", "equations", "exact_match", "minimum_margin")
    metrics = {name: report[name] for name in names}
    metrics["test_exact_match"] = report["test"]["exact_match"]
    for path, content in ((METRICS, metrics), (REPORT, report)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for path, rows in plots.items():
        rows.to_csv(path, index=False, lineterminator="\n")


def main() -> None:
    """Run the stage."""
    with cli_errors():
        params = load_params()
        grammar = artifacts.load_config(MODEL).get_grammar()
        report, plots = evaluate(
            read_split("test", grammar), read_split("train", grammar), params.evaluate
        )
        write(report, plots)
        print(
            f"evaluate: {report['errors']:,} errors in {report['equations']:,} equations, "
            f"minimum margin {report['minimum_margin']}"
        )


if __name__ == "__main__":
    main()
