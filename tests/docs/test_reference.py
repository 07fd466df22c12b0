"""The committed reference is what the code gives, and every metric is described."""

import csv
import inspect
import json
import re
from typing import Any

import pytest

from benchmarks.results_file import ROOT
from registry.run_content import curves, numbers
from scripts.reference import PAGES, REFERENCE, describe_attributes, render_page
from stages.params import Params
from tests.registry.project import make_project


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name):
    assert (REFERENCE / f"{name}.md").read_text("utf-8") == render_page(name), (
        "run `make reference`"
    )


def test_every_param_is_described():
    for section, info in Params.model_fields.items():
        model: Any = info.annotation
        described = describe_attributes(inspect.getdoc(model) or "")
        assert list(described) == list(model.model_fields), section
        assert all(described.values()), section


def described_metrics() -> dict[str, dict[str, str]]:
    """Return the metrics of each section of the page, with their names in MLflow."""
    sections = (REFERENCE / "metrics.md").read_text("utf-8").split("\n## ")[1:-1]
    row = re.compile(r"^\| `(.+?)` \| (?:(?:`(.+?)`)? \| )?\S.* \|$", re.M)
    return {text.partition("\n")[0]: dict(row.findall(text)) for text in sections}


def test_every_metric_of_the_files_is_described():
    described = described_metrics()
    described.pop("Only in MLflow")
    assert {f"metrics/{path.name}" for path in (ROOT / "metrics").glob("*.*")} == set(described)
    for name, metrics in described.items():
        text = (ROOT / name).read_text("utf-8")
        keys = json.loads(text) if name.endswith(".json") else next(csv.reader(text.splitlines()))
        assert list(metrics) == list(keys), name


def test_every_metric_in_mlflow_is_described(tmp_path):
    project = make_project(tmp_path)
    for name in ("history.csv", "grpo.csv"):
        (project / "metrics" / name).write_bytes((ROOT / "metrics" / name).read_bytes())
    with (project / "metrics" / "grpo.csv").open("a") as file:
        file.write(f"10,+{',0.5' * 10}\n")
    counts = dict.fromkeys(("equations", "errors_before", "errors_after"), 1)
    training = {"parameters": 1, "steps": 1, "best_step": 1, "grpo": counts}
    (project / "reports" / "training.json").write_text(json.dumps(training))
    report = json.loads((project / "reports" / "evaluation.json").read_text())
    report["sampled"] = {"error_rate_bound": 0.1}
    names = {*numbers(project, report)}.union(*curves(project).values())
    described = described_metrics()
    only = described.pop("Only in MLflow").keys()
    logged = {re.sub("_(addition|subtraction)$", "_OPERATION", name) for name in names}
    assert logged == (only | {n for part in described.values() for n in part.values()}) - {""}


def test_every_dependency_has_its_reason():
    texts = [path.read_text("utf-8") for path in (ROOT / "requirements").glob("*.in")]
    names = set(re.findall(r"^[a-z][\w.-]*", "\n".join(texts), re.M))
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \| \S", page, re.M)
    assert set(re.findall(r"`(.*?)`", " ".join(rows))) == names
