"""The commands of tutorial and how-tos run, one after the other, at tiny params."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from benchmarks.tutorial import (
    HOW_TOS,
    LINES_NOT_RUN,
    PAGES_NOT_RUN,
    TUTORIAL,
    read_lines,
    run_lines,
)
from benchmarks.workspace import TINY, copy

# `make test-docs` runs the others too: they repeat these commands with other params.
IN_CI = ["experiments", "promote", "recover", "share-a-cache"]
SMALLER = {"sleep 30": "sleep 3", "100-99=": "7-9="}
EXPERIMENTS = {
    "four-operations": {
        "generate": {"operations": ["+", "-", "*", "/"]},
        "train": {"batch_sizes": [16, 16, 16]},
        "model": {"attention": "positional"},
    },
    "grpo": {"grpo": {"steps": 3, "questions": 4, "group_size": 4}},
}
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


def shrink(line: str, folder: Path) -> str:
    for large, small in {**SMALLER, "/mnt/team": str(folder)}.items():
        line = line.replace(large, small)
    return line


@pytest.fixture(scope="module")
def promoted(pipeline, tmp_path_factory):
    """Return a copy of the pipeline as `make run` leaves it, with small experiments."""
    root = tmp_path_factory.mktemp("docs") / "promoted"
    shutil.copytree(pipeline, root, symlinks=True)
    for name, params in EXPERIMENTS.items():
        (root / "experiments" / f"{name}.yaml").write_text(json.dumps(params), "utf-8")
    promote = "python -m registry.promotion 1 --override-gate 'tiny params'"
    run_lines(["git commit -qam small", promote], root)
    # The copies share this cache: what one page trains is not trained again for the next.
    config = f"[cache]\n    dir = {root / '.dvc' / 'cache'}\n"
    (root / ".dvc" / "config.local").write_text(config, "utf-8")
    return root


@pytest.mark.slow
def test_tutorial_runs_as_written(tmp_path):
    root = copy(tmp_path / "arithmetic-lm", TINY | LENIENT)
    borrow_environment(root)
    rows = run_lines([shrink(line, tmp_path) for line in read_lines(TUTORIAL)], root, **TOLERANT)
    outputs = {row["command"]: row["output"] for row in rows}
    assert "registry: version 1 of arithmetic-lm is Production now" in outputs["make run"]
    healths = [row["output"] for row in rows if row["command"].endswith("/health")]
    assert [json.loads(text)["model_version"] for text in healths] == ["1", "2"]
    swaps = [row["command"].split()[1] for row in rows if "swap_seconds" in row]
    assert swaps == ["promote", "rollback"]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_CI)
def test_how_to_runs_as_written(promoted, tmp_path, name):
    root = tmp_path / "project"
    shutil.copytree(promoted, root, symlinks=True)
    borrow_environment(root)
    lines = read_lines(ROOT / "docs" / "how-to" / f"{name}.md")
    assert run_lines([shrink(line, tmp_path) for line in lines], root, **TOLERANT)


def test_a_failing_command_ends_the_page(tmp_path):
    with pytest.raises(UserError, match="`false` failed"):
        run_lines(["export A=1", "cd /", "test $A$PWD = 1/", "false", "true"], tmp_path)


def test_everything_that_does_not_run_is_in_the_pages():
    assert PAGES_NOT_RUN.keys() <= {page.stem for page in HOW_TOS}
    lines = [line for page in (TUTORIAL, *HOW_TOS) for line in read_lines(page)]
    for start in LINES_NOT_RUN:
        assert any(line.startswith(start) for line in lines), start
