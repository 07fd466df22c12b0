"""make six-digits: addition and subtraction over 0-999999, by params alone.

The domain has 2 * 10^12 equations, so its certificate is a sample: every documented edge case, a
million random equations, and the bound on the error rate that follows (`stages/domain.py`).
"""

from arithmetic.errors import reported
from benchmarks.module_run import ROOT
from benchmarks.results_file import write
from benchmarks.trial import Changes, trial

CHANGES: Changes = {"generate": {"max_operand": 999_999}}


def main() -> None:
    with reported():
        print(f"training and certifying with {CHANGES}", flush=True)
        found = trial("six digits", ROOT / "params.yaml", CHANGES)
        evaluation = found["evaluation"]
        sampled = evaluation["sampled"]
        figures = {
            "changes": CHANGES,
            "parameters": found["training"]["parameters"],
            "exact_match": evaluation["exact_match"],
            "errors": evaluation["errors"],
            "equations": evaluation["equations"],
            "smallest_margin": evaluation["smallest_margin"],
            "sampled": sampled,
            "first_failures": evaluation["first_failures"][:10],
        }
        write("six-digits", figures)
        print(
            f"{evaluation['errors']:,} wrong of {evaluation['equations']:,}: "
            f"{sampled['edge_case_errors']:,} of {sampled['edge_cases']:,} edge cases, "
            f"{sampled['random_errors']:,} of {sampled['random']:,} random ones; with "
            f"{sampled['confidence']:.0%} confidence at most {sampled['error_rate_at_most']:.2g} "
            f"of all are wrong; smallest margin {evaluation['smallest_margin']}"
        )


if __name__ == "__main__":
    main()
