"""The certificate of `make reproduce` compares what it says it compares."""

import json
from pathlib import Path

import pytest
import yaml

from arithmetic import bundle
from arithmetic.checksum import md5
from benchmarks.reproduce import compared, outputs
from registry import workspace
from registry.flat import flatten

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


def test_the_committed_certificate_is_of_this_dvc_lock():
    found = json.loads((ROOT / "benchmarks" / "results" / "reproduce.json").read_text())
    assert found["equal"] is True
    assert found["commit"]
    assert {path: row["got"] for path, row in found["outputs"].items()} == outputs(
        ROOT / "dvc.lock"
    )


@pytest.mark.parametrize("project", [".", "four-operations"])
def test_dvc_lock_is_of_the_committed_code_and_params(project):
    """An edit that changes no output's bytes leaves a stale lock, which no output shows."""
    folder = ROOT / project
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    params = flatten(yaml.safe_load((folder / "params.yaml").read_text()))
    made = set(outputs(folder / "dvc.lock"))
    seen = 0
    for name, stage in workspace.locked_stages(lock).items():
        for path, digest in stage["deps"].items():
            if path not in made and not path.startswith("data/"):
                assert md5(folder / path) == digest, f"{name}: {path}; run dvc repro"
                seen += 1
        for key, value in stage["params"].items():
            assert params[key] == value, f"{name}: {key}; run dvc repro"
    assert seen > 20


@pytest.mark.parametrize(
    ("result", "project"),
    [("certify-full", "."), ("certify-full-four-operations", "four-operations")],
)
def test_every_equation_was_decoded_by_the_committed_graphs(result, project):
    found = json.loads((ROOT / "benchmarks" / "results" / f"{result}.json").read_text())
    evaluation = json.loads((ROOT / project / "metrics" / "evaluation.json").read_text())
    assert found["bundle_sha256"] == bundle.digest(ROOT / project / "bundle")
    assert (found["equations"], found["errors"]) == (evaluation["equations"], 0)
