import os
import shutil

import pytest

from arithmetic.errors import UserError
from benchmarks import reproduce_cpus


@pytest.mark.qemu
@pytest.mark.slow
def test_tiny_pipelines_have_the_same_hashes_on_emulated_cpus():
    if not shutil.which(reproduce_cpus.QEMU):
        assert "CI" not in os.environ, f"{reproduce_cpus.QEMU} is missing; .ci/run installs it"
        pytest.skip(f"{reproduce_cpus.QEMU} is not installed (apt-get install qemu-user)")
    outputs = reproduce_cpus.compare_cpus(is_quick=True)
    assert outputs["equal"].all(), outputs.to_string()
    assert "tiny-grpo/metrics/grpo.csv" in outputs.index
    for name in ("tiny", "tiny-four-operations"):
        assert {f"{name}/data/train.csv", f"{name}/reports/evaluation.json"} <= set(outputs.index)


def test_without_the_emulator_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(reproduce_cpus, "QEMU", "no-such-emulator")
    with pytest.raises(UserError) as caught:
        reproduce_cpus.compare_cpus(is_quick=True)
    assert "apt-get install qemu-user" in caught.value.hint
