"""Alert rules and the dashboard: they fire, and ask for metrics that the service has."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from scripts.server_process import ROOT
from serving.metrics import Metrics

TEAM = ROOT / "deploy" / "team"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="promtool is missing"
)


def alerts() -> list[str]:
    (group,) = YAML(typ="safe").load(TEAM / "alerts.yml")["groups"]
    return [rule["expr"] for rule in group["rules"]]


def dashboard() -> list[str]:
    panels = json.loads((TEAM / "grafana" / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_on_its_condition_and_not_without_it():
    promtool("test", "rules", Path(__file__).with_name("alerts_test.yml"))


@needs_promtool
def test_queries_of_the_dashboard_are_valid(tmp_path):
    rules = [{"record": f"query_{n}", "expr": expr} for n, expr in enumerate(dashboard())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_service_has_every_metric_that_is_asked_for():
    suffixes = ("", "_total", "_sum", "_count", "_bucket")
    known = {
        f"{family.name}{suffix}" for family in Metrics().registry.collect() for suffix in suffixes
    }
    asked = set(re.findall(r"\b(?:arithmetic|process)_\w+", " ".join(alerts() + dashboard())))
    assert len(asked) >= 8
    assert asked <= known


def test_the_dashboard_reads_the_provisioned_source():
    source = YAML(typ="safe").load(TEAM / "grafana" / "datasource.yaml")["datasources"][0]
    panels = json.loads((TEAM / "grafana" / "dashboard.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
