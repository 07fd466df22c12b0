"""The comparison of reinforcement learning with supervised steps, at tiny size."""

import ast
import subprocess
import sys

from tests.small_project import ROOT


def test_tiny_comparison_prints_all_three():
    command = [sys.executable, "-m", "benchmarks.grpo_comparison", "--tiny", "--seeds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed 1, ")]
    assert [line.split()[2] for line in lines] == ["start:", "grpo:", "supervised:"]
    for line in lines[1:]:
        figures = ast.literal_eval(line.partition(": ")[2])
        assert 0 <= figures["new_errors"] <= figures["errors"]
