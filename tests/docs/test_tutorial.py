"""The tutorial's commands run, one after the other, at tiny params."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tutorial import TUTORIAL, read_lines, run_lines
from benchmarks.workspace import TINY, copy

# Tiny models are wrong now and then.
LENIENT = {"promote": {"max_errors": 1_000, "min_margin": -1_000.0}}


def borrow_environment(root: Path) -> None:
    """Give a copy this environment, stamped as `make setup` does, so that it installs nothing."""
    own = root / ".venv"
    own.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (own / name).symlink_to(Path(sys.prefix) / name)
    lock = root / "requirements" / "dev.lock"
    checksum = subprocess.check_output(["cksum"], stdin=lock.open(), text=True)
    (own / "stamp").write_text(f"{own}\n{checksum}")


@pytest.mark.slow
def test_tutorial_runs_as_written(tmp_path):
    root = copy(tmp_path / "arithmetic-lm", TINY | LENIENT)
    borrow_environment(root)
    rows = run_lines(read_lines(TUTORIAL), root, MAX_ERROR_RATE="1")
    outputs = {row["command"]: row["output"] for row in rows}
    assert "registry: version 1 of arithmetic-lm is Production now" in outputs["make run"]
    healths = [row["output"] for row in rows if row["command"].endswith("/health")]
    assert [json.loads(text)["model_version"] for text in healths] == ["1", "2"]
    assert outputs["served in the end"] == "1"
