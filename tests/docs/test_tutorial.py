"""The commands of tutorial and how-tos run, one after the other, at tiny params."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results_file import ROOT
from benchmarks.tutorial import TUTORIAL, read_lines, run_lines
from benchmarks.workspace import TINY, copy

# Not at tiny params (files of params, the gate), not without a bucket or a terminal.
SKIPPED = ("make experiment", "dvc remote modify", "dvc remote add --local --default s3", "dvc gc")
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com"}
IDENTITY |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com"}
# Tiny models are often wrong.
LENIENT = {"promote": {"max_errors": 1_000, "min_margin": -1_000.0}}
TOLERANT = {"MAX_ERROR_RATE": "1", "OVERRIDE_GATE": "tiny params"}
TOLERANT |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else seven more processes


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
    rows = run_lines(read_lines(TUTORIAL), root, **TOLERANT)
    outputs = {row["command"]: row["output"] for row in rows}
    assert "registry: version 1 of arithmetic-lm is Production now" in outputs["make run"]
    healths = [row["output"] for row in rows if row["command"].endswith("/health")]
    assert [json.loads(text)["model_version"] for text in healths] == ["1", "2"]
    swaps = [row["output"] for row in rows if row["command"] == "the service swaps"]
    assert swaps == ["2", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["experiments", "share-a-cache"])
def test_how_to_runs_as_written(project, tmp_path, page):
    borrow_environment(project)
    lines = read_lines(ROOT / "docs" / "how-to" / f"{page}.md")
    lines = [line.replace("/mnt/team", str(tmp_path)) for line in lines]
    # The second clone's commands are the first one's: each is run once.
    run_lines(
        [n for n in dict.fromkeys(lines) if not n.startswith(SKIPPED)],
        project,
        **TOLERANT,
        **IDENTITY,
    )
