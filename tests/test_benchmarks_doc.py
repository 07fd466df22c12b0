"""docs/benchmarks.md: the figures that it states are those of a dated result."""

import json

from benchmarks.serving_environment import BARS
from benchmarks.small import ROOT


def test_what_serving_costs_is_what_was_measured():
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    found = json.loads((ROOT / "benchmarks" / "results" / "serving-environment.json").read_text())
    assert (
        f"ready in {found['ready_seconds']:.2f} s, {found['memory_after_load_mb']:.0f} MB after "
        f"load, {found['site_packages_mb']:.0f} MB of packages"
    ) in text
    assert all(found[key] < bar for key, bar in BARS.items()), "a bar is not met: say so there"
