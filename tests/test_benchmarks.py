"""The serving benchmarks work: short samples, for real, whose speed is nobody's business."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.serving_load import Sample
from benchmarks.serving_peers import SERVERS
from benchmarks.serving_store import registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A server over the committed models, made once for both samples."""
    with registry() as uri:
        yield uri


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["python", "wrk"])
def test_serving_is_measured_beside_the_constant_answer(store, tool):
    if tool == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    options = ["--rounds", "1", "--seconds", "1", "--load", tool, "--registry", store]
    done = run("serving", "--only", "constant,service", *options, "--result", "")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("constant", "service"):
        (line,) = [
            line for line in done.stdout.splitlines() if line.startswith(SERVERS[name].title)
        ]
        *_, throughput, _, _, _, alone, _, failed = line.replace(",", "").split()
        assert float(throughput) > 0 < float(alone)
        assert failed == "0"


@pytest.mark.slow
def test_every_trial_of_the_faults_runs_and_nothing_fails(store):
    done = run("faults", "--short", "--registry", store, "--result", "")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_name_that_no_server_has_is_said():
    done = run("serving", "--only", "apache")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no server is called apache; there are service, constant")


def row(throughput: float, milliseconds: float, failures: int = 0) -> serving.Samples:
    return {
        64: [Sample(throughput, 5.0, 9.0, failures)] * 3,
        1: [Sample(1000.0, milliseconds, 1.0, 0)] * 3,
    }


@pytest.mark.parametrize(
    ("throughput", "milliseconds", "met"),
    [(1200, 0.4, [True, True]), (1199, 0.4, [False, True]), (1300, 0.7, [True, False])],
)
def test_the_bars_are_judged_by_the_ratios_of_each_round(throughput, milliseconds, met):
    constant = row(1000, 0.2)
    assert [
        *serving.verdict(serving.figures(row(throughput, milliseconds), constant)).values()
    ] == met


def test_a_server_that_cannot_be_measured_is_in_the_table_with_the_reason():
    rows = {"service": serving.figures(row(10, 1, failures=2), None)}
    text = serving.table(rows, {"bentoml": "it cannot be installed here"})
    assert "BentoML                    not measured: it cannot be installed here" in text
    assert text.splitlines()[2].split()[-1] == "6"


def test_published_figures_are_of_a_whole_run():
    """benchmarks/results/serving.json, once it is there, has every server and the bars."""
    path = ROOT / "benchmarks" / "results" / "serving.json"
    if not path.exists():
        pytest.skip("not published yet")
    found = json.loads(path.read_text())
    assert set(found["servers"]) | set(found["not_measured"]) == set(SERVERS)
    assert found["load_generator"] == "wrk"
    # A peer's failures are published as they came; what this repository serves may have none.
    for name in ("service", "constant", "multiplication", "division"):
        assert found["servers"][name]["connections_64"]["failures"] == 0
