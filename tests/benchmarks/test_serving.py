import shutil
import subprocess
import sys

import pytest

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from benchmarks.serving import parse_profile, summarize
from tests.serving.model_directories import make_model

RAW = """\
MainThread;run (asyncio/runners.py:118);answer (serving/predict.py:40) 3
MainThread;run (asyncio/runners.py:118);send (uvicorn/http.py:9) 2
MainThread;run (asyncio/runners.py:118);send (uvicorn/http.py:12) 1
process 1 2
"""


@pytest.mark.slow
def test_the_service_is_measured_beside_the_constant_answer(tmp_path):
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.serving", "--only", "constant", "service"]
    command += ["--rounds", "1", "--seconds", "1", "--model", str(model), "--no-result"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith(" 0")]
    assert len(rows) == 2  # neither had a failure


def test_medians_are_of_the_ratios_within_a_round_and_failures_are_added_up():
    rates = {"constant": [100.0, 1000.0, 100.0], "service": [120.0, 1300.0, 100.0]}
    rows = [
        {"server": name, "round": number, "per_second_64": rate, "p50_ms_1": 0.2, "failures": 2}
        for name, values in rates.items()
        for number, rate in enumerate(values)
    ]
    service = summarize(rows)["service"]
    assert service["per_second_64"] == 120.0
    assert (service["throughput_of_constant"], service["latency_of_constant"]) == (1.2, 1.0)
    assert service["failures"] == 6
    assert "throughput_of_constant" not in summarize(rows[3:])["service"]


def test_shares_of_a_profile_are_of_the_innermost_frame_over_all_its_lines():
    figures = parse_profile(RAW)
    assert figures["samples"] == 6
    assert figures["packages"] == {"serving": 0.5, "uvicorn": 0.5}
    assert figures["functions"]["uvicorn/http.py send"] == 0.5
    with pytest.raises(UserError, match="no Python frame"):
        parse_profile("")
