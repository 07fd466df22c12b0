import os
import shutil

import pytest

from arithmetic.errors import UserError
from benchmarks import reproduce_cpus
from benchmarks.reproduce import show
from benchmarks.reproduce_cpus import QEMU, compare_cpus


@pytest.mark.qemu
@pytest.mark.slow
def test_tiny_pipelines_have_the_same_hashes_on_emulated_cpus(tmp_path):
    if not shutil.which(QEMU):
        assert "CI" not in os.environ, f"{QEMU} is missing; .ci/run installs it"
        pytest.skip(f"{QEMU} is not installed (apt-get install qemu-user)")
    result = compare_cpus(True, tmp_path)
    assert result["equal"], show(result["outputs"])
    assert "tiny-grpo/metrics/grpo.csv" in result["outputs"]
    for name in ("tiny", "tiny-four-operations"):
        assert {f"{name}/{path}" for path in ("data/train.csv", "reports/evaluation.json")} <= set(
            result["outputs"]
        )


def test_without_the_emulator_the_error_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce_cpus, "QEMU", "no-such-emulator")
    with pytest.raises(UserError) as caught:
        compare_cpus(True, tmp_path)
    assert "apt-get install qemu-user" in caught.value.hint
