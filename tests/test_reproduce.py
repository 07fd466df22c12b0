"""The certificate of `make reproduce` compares what it says it compares."""

import json
from pathlib import Path

import pytest
import yaml

from arithmetic import bundle
from benchmarks.reproduce import compared, outputs

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("project", [".", "four-operations"])
def test_every_declared_output_is_in_the_certificate(project):
    stages = yaml.safe_load((ROOT / project / "dvc.yaml").read_text())["stages"]
    declared = set()
    for stage in stages.values():
        for kind in ("outs", "metrics", "plots"):
            declared |= {next(iter(o)) if isinstance(o, dict) else o for o in stage.get(kind, [])}
    assert set(outputs(ROOT / project / "dvc.lock")) == declared


@pytest.mark.parametrize("project", [".", "four-operations"])
def test_the_committed_bundle_is_the_one_that_was_evaluated(project):
    evaluation = json.loads((ROOT / project / "metrics" / "evaluation.json").read_text())
    assert evaluation["bundle_sha256"] == bundle.digest(ROOT / project / "bundle")


def test_the_certificate_of_four_operations_is_its_evaluation():
    certificate = (ROOT / "docs" / "certificates" / "four-operations.json").read_bytes()
    assert certificate == (ROOT / "four-operations" / "metrics" / "evaluation.json").read_bytes()
    beside = ROOT / "docs" / "certificates" / "four-operations-bundle"
    assert json.loads(certificate)["bundle_sha256"] == bundle.digest(beside)


def test_the_certificate_shows_what_differs_and_what_is_missing():
    """Everything is run and compared for real in .ci/run: `make reproduce`, by HEAD's dvc.lock."""
    rows = compared({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    assert [path for path, row in rows.items() if row["expected"] != row["got"]] == ["b", "c", "d"]
    assert rows["c"]["got"] == rows["d"]["expected"] == "-"


def test_continuous_integration_reproduces_before_it_tests():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 0 < script.index("make reproduce || reproduced=$?") < script.index("\nmake test\n")
    assert script.rstrip().endswith('exit "$reproduced"')
