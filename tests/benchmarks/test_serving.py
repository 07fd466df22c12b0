import shutil
import subprocess
import sys

import pytest

from benchmarks.results_file import ROOT
from benchmarks.serving import judge_targets, show, summarize
from benchmarks.serving_load import Sample
from tests.serving.model_directories import make_model


@pytest.mark.slow
def test_the_service_is_measured_beside_the_constant_answer(tmp_path):
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.serving", "--only", "constant,service"]
    command += ["--rounds", "1", "--seconds", "1", "--model", str(model), "--result", ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "throughput at least 1.2 times" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith(" 0")]
    assert len(rows) == 2  # neither had a failure


def samples(throughput: float, milliseconds: float, failures: int = 0) -> dict[int, list[Sample]]:
    return {
        64: [Sample(throughput, 5.0, 9.0, failures)] * 3,
        1: [Sample(1000.0, milliseconds, 1.0, 0)] * 3,
    }


@pytest.mark.parametrize(
    ("throughput", "milliseconds", "is_met"),
    [
        (1200, 0.5, [True, True, True]),
        (1199, 0.8, [False, True, True]),
        (999, 0.9, [False, False, False]),
    ],
)
def test_targets_are_judged_by_the_ratios_to_the_constant_answer(throughput, milliseconds, is_met):
    row = summarize(samples(throughput, milliseconds), samples(1000, 0.2))
    assert [*judge_targets(row).values()] == is_met


def test_failures_of_all_rounds_are_in_the_table():
    rows = {"service": summarize(samples(10, 1, failures=2), None)}
    assert show(rows, {"service": "this service"}).splitlines()[-1].split()[-1] == "6"
