import json
import os
import shutil

import pytest

from benchmarks import reproduce_cpus
from benchmarks.reproduce_cpus import QEMU, QUICK_CPUS, build_table, compare, is_equal, show
from benchmarks.reproduce_operations import Operations, find_unverified


@pytest.mark.qemu
@pytest.mark.slow
def test_tiny_pipelines_have_the_same_hashes_on_emulated_cpus():
    if not shutil.which(QEMU):
        assert "CI" not in os.environ, f"{QEMU} is missing; .ci/run installs it"
        pytest.skip(f"{QEMU} is not installed (apt-get install qemu-user)")
    result = compare(is_quick=True, cpus=QUICK_CPUS)
    assert result["equal"], show(result)
    for name in ("tiny", "tiny-four-operations"):
        assert {f"{name}/{path}" for path in ("data/train.csv", "reports/evaluation.json")} <= set(
            result["outputs"]
        )


def test_a_difference_is_shown_and_a_missing_output_is_one():
    table = build_table({"a": {"sha256": {"x": "1", "y": "1"}}, "b": {"sha256": {"x": "2"}}})
    assert not is_equal(table["x"])
    assert table["y"] == {"a": "1", "b": "-"}
    text = show({"outputs": table, "as_in_repository": {"x": False}, "cpus": {"a": {}, "b": {}}})
    assert text.count("DIFFERS") == 2
    assert text.count("NOT AS IN THE REPOSITORY") == 1


def test_without_the_emulator_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(reproduce_cpus, "QEMU", "no-such-emulator")
    with pytest.raises(reproduce_cpus.UserError) as caught:
        reproduce_cpus.emulator_version()
    assert "apt-get install qemu-user" in caught.value.hint


def test_an_operation_counts_as_verified_only_if_the_hashes_were_equal(tmp_path):
    import torch

    with Operations() as operations:
        torch.ones(2) + torch.ones(2, dtype=torch.float64)
    (added,) = [name for name in operations.seen if "add" in name]
    assert added == "aten.add.Tensor float32 float64"
    result = tmp_path / "result.json"
    for is_equal_everywhere, unverified in ((True, []), (False, [added])):
        result.write_text(json.dumps({"equal": is_equal_everywhere, "operations": [added]}))
        assert find_unverified({added}, result) == unverified
