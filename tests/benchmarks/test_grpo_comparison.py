"""The comparison of reinforcement learning with supervised steps, at tiny size."""

import subprocess
import sys

import numpy as np

from benchmarks.grpo_comparison import longest_chain
from tests.small_project import ROOT


def test_chains_of_carries_and_borrows():
    a, b = np.array([999, 109, 555, 100, 7, 12]), np.array([1, 1, 111, 99, 12, 7])
    assert longest_chain("+", a, b, 3).tolist() == [3, 1, 0, 0, 0, 0]
    assert longest_chain("-", a, b, 3).tolist() == [0, 0, 0, 2, 1, 1]


def test_tiny_comparison_prints_all_three():
    command = [sys.executable, "-m", "benchmarks.grpo_comparison", "--tiny", "--seeds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed 1, ")]
    assert [line.split()[2] for line in lines] == ["start:", "grpo:", "supervised:"]
