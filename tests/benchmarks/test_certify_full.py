import json
from pathlib import Path

from benchmarks.certify_full import certify


def test_decoding_every_equation_finds_the_errors_that_the_evaluation_found(pipeline: Path):
    report = json.loads((pipeline / "reports/evaluation.json").read_text())
    figures = certify(pipeline / "model")
    assert figures["equations"] == report["equations"] == 200
    assert figures["errors"] == report["errors"] > 0
    assert len(figures["first_failures"]) <= 10
    assert figures["model_digest"] == report["model_digest"]
