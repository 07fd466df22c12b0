import shutil
import subprocess
import sys

import pytest

from benchmarks.results_file import ROOT
from benchmarks.serving import SERVERS, judge_targets, show, summarize
from tests.serving.model_directories import make_model


@pytest.mark.slow
def test_the_service_is_measured_beside_the_constant_answer(tmp_path):
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.serving", "--only", "constant,service"]
    command += ["--rounds", "1", "--seconds", "1", "--model", str(model), "--no-result"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "throughput at least 1.2 times" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith(" 0")]
    assert len(rows) == 2  # neither had a failure


def rounds(throughput, milliseconds, failures=0):
    figures = {"per_second_64": throughput, "p50_ms_64": 5.0, "p99_ms_64": 9.0}
    figures |= {"per_second_1": 1000.0, "p50_ms_1": milliseconds, "p99_ms_1": 1.0}
    return [{**figures, "failures": failures}] * 3


@pytest.mark.parametrize(
    ("throughput", "milliseconds", "is_met"),
    [
        (1200, 0.5, [True, True, True]),
        (1199, 0.8, [False, True, True]),
        (999, 0.9, [False, False, False]),
    ],
)
def test_targets_are_judged_by_the_ratios_to_the_constant_answer(throughput, milliseconds, is_met):
    row = summarize(rounds(throughput, milliseconds), rounds(1000, 0.2))
    assert [*judge_targets(row).values()] == is_met


def test_failures_of_all_rounds_are_in_the_table(capsys):
    rows = {"service": summarize(rounds(10, 1, failures=2), [])}
    show({"servers": rows, "not_measured": {"torch": "no wheel"}}, SERVERS)
    *_, line, missing = capsys.readouterr().out.splitlines()
    assert line.split()[-1] == "6"
    assert missing == "FastAPI, torch eager not measured: no wheel"
