"""docs/benchmarks.md and CHANGELOG.md: their figures are those of dated results."""

import json

from benchmarks.faults import TRIALS
from benchmarks.serving_environment import BARS
from benchmarks.small import ROOT


def test_what_the_faster_graphs_are_worth_is_what_was_measured():
    found = json.loads((ROOT / "benchmarks" / "results" / "decoders.json").read_text())
    ratios = [row["ratio"] for rows in found["rows"].values() for row in rows]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"answer in {min(ratios):.2f} to {max(ratios):.2f} of the time" in text


def test_what_serving_costs_is_what_was_measured():
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    found = json.loads((ROOT / "benchmarks" / "results" / "serving-environment.json").read_text())
    assert (
        f"ready in {found['ready_seconds']:.2f} s, {found['memory_after_load_mb']:.0f} MB after "
        f"load, {found['site_packages_mb']:.0f} MB of packages"
    ) in text
    assert all(found[key] < bar for key, bar in BARS.items()), "a bar is not met: say so there"


def test_every_trial_of_the_faults_was_made_on_two_cores_and_nothing_failed():
    found = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert set(found["trials"]) == set(TRIALS)
    assert found["failures"] == 0
    assert found["server_core"] != found["load_core"]
