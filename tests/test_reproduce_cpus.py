"""Other CPUs arrive at the same bytes: a few steps in every run, all of it in the dated result."""

import hashlib
import json
import os
import shutil

import pytest

from arithmetic.errors import Problem
from benchmarks import reproduce_cpus, sources
from benchmarks.reproduce_cpus import CPUS, QEMU, compare, compared, equal, table
from benchmarks.reproduce_operations import RESULT
from benchmarks.small import ROOT


@pytest.mark.qemu
@pytest.mark.slow
def test_a_few_steps_have_the_same_hashes_on_emulated_cpus():
    """Data, initialisation, training with both attentions, the pass, decoding."""
    if not shutil.which(QEMU):
        assert "CI" not in os.environ, f"{QEMU} is missing; .ci/run installs it"
        pytest.skip(f"{QEMU} is not installed (apt-get install qemu-user)")
    result = compare(quick=True, cpus=(CPUS[0], *CPUS[2:]))
    assert result["equal"], table(result)
    assert len(result["outputs"]) > 20


def test_the_committed_result_found_every_output_equal_and_as_committed():
    result = json.loads(RESULT.read_text())
    assert result["equal"] is True
    assert set(result["cpus"]) == {cpu.name for cpu in CPUS}
    assert all(map(equal, result["outputs"].values()))
    assert all(len(row) == len(CPUS) for row in result["outputs"].values())
    assert all(result["committed"].values())
    assert result["quick"] is False
    for project in ("default", "four-operations"):
        assert result["committed"][f"{project}/data/train.csv"]
        assert result["committed"][f"{project}/committed/decoders/addition.onnx"]
        for attention in ("position", "content"):
            assert f"{project}-{attention}/weights.safetensors" in result["outputs"]
    assert "small/evaluation.json" in result["outputs"]


@pytest.mark.parametrize("project", ["default", "four-operations"])
def test_what_was_compared_with_the_repository_is_what_is_there_now(project):
    """The graphs of today, not those of an earlier day."""
    outputs = json.loads(RESULT.read_text())["outputs"]
    folder = ROOT / ("." if project == "default" else project) / "bundle" / "decoders"
    graphs = sorted(folder.glob("*.onnx"))
    assert graphs
    for graph in graphs:
        digests = set(outputs[f"{project}/committed/decoders/{graph.name}"].values())
        assert digests == {hashlib.sha256(graph.read_bytes()).hexdigest()}, graph


def test_a_difference_is_shown_and_a_missing_output_is_one():
    rows = compared({"a": {"sha256": {"x": "1", "y": "1"}}, "b": {"sha256": {"x": "2"}}})
    assert not equal(rows["x"])
    assert rows["y"] == {"a": "1", "b": "-"}
    shown = table({"outputs": rows, "committed": {}, "cpus": {"a": {}, "b": {}}})
    assert shown.count("DIFFERS") == 2


def test_without_the_emulator_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(reproduce_cpus, "QEMU", "no-such-emulator")
    with pytest.raises(Problem, match="apt-get install qemu-user"):
        reproduce_cpus.emulator()


def test_outputs_kept_of_other_code_are_not_gone_on_with(tmp_path, monkeypatch):
    """They would be compared as if they were this code's."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "train.py").write_text("one")
    before = sources.digest(*reproduce_cpus.SOURCES)
    (tmp_path / "stages" / "notes.txt").write_text("decides nothing")
    assert sources.digest(*reproduce_cpus.SOURCES) == before
    (tmp_path / "stages" / "train.py").write_text("two")
    assert sources.digest(*reproduce_cpus.SOURCES) != before
