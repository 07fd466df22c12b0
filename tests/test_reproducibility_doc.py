"""docs/reproducibility.md: its figures stand in dated results, its settings are the real ones."""

import json
import re
from pathlib import Path

import stages
from benchmarks.kill_points import NAMED
from benchmarks.small import ROOT

TEXT = " ".join((ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8").split())
RESULTS = ROOT / "benchmarks" / "results"


def test_the_kills_are_those_of_the_benchmark():
    found = json.loads((RESULTS / "kills.json").read_text())
    rounds = f"{found['rounds']:,} round{'s' if found['rounds'] > 1 else ''}"
    assert f"{found['kills']:,} kills in {rounds}, none lost anything" in TEXT
    assert found["lost"] == 0
    assert {point.name for points in NAMED.values() for point in points} <= set(
        found["at_named_points"]
    )


def test_the_outputs_that_cpus_agree_on_are_those_of_the_benchmark():
    found = json.loads((RESULTS / "reproduce-cpus.json").read_text())
    assert f"{len(found['outputs'])} outputs, equal on all {len(found['cpus'])} CPUs" in TEXT


def test_every_setting_is_named():
    for name, value in stages.REPRODUCIBLE_ENVIRONMENT.items():
        if not name.endswith("_NUM_THREADS"):  # "one thread a process"
            assert f"{name}={value}" in TEXT, name


def test_every_file_and_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", TEXT):
        assert f"\n{target}:" in makefile, target
    for name in re.findall(r"`((?:tests|stages|benchmarks|registry)/[\w./-]+\.\w+)`", TEXT):
        assert Path(ROOT / name).is_file(), name


def test_the_default_remote_is_the_documented_one():
    assert "url = ~/.cache/arithmetic-lm/dvc" in (ROOT / ".dvc" / "config").read_text()
    assert "`~/.cache/arithmetic-lm/dvc`" in TEXT
