"""A bar in a terminal, plain lines elsewhere."""

import os
import pty
import re
import subprocess
import sys

import pytest

from stages.progress import ProgressBar
from tests.small_project import ROOT

CODE = """
import time
from stages.progress import ProgressBar
with ProgressBar("train", 4) as bar:
    bar.advance(2, "loss 0.5")
    time.sleep(0.2)
    bar.advance(2)
"""


def run_in_terminal(**environment: str) -> str:
    controller, terminal = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    inherited |= {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", CODE]
    subprocess.run(command, cwd=ROOT, stdout=terminal, env=inherited | environment, check=True)
    os.close(terminal)
    output = os.read(controller, 100_000).decode()
    os.close(controller)
    return output


@pytest.mark.parametrize(("is_quiet", "output"), [(False, "train: loss 0.5\n"), (True, "")])
def test_status_is_a_line_where_there_is_no_terminal(capsys, is_quiet, output):
    with ProgressBar("train", 4, is_quiet=is_quiet) as bar:
        bar.advance(2, "loss 0.5")
        bar.advance(2)
    assert capsys.readouterr().out == output


def test_count_and_rate_are_a_line_where_no_status_comes(capsys, monkeypatch):
    monkeypatch.setattr("stages.progress.PLAIN_SECONDS", -1.0)
    with ProgressBar("evaluate", 4_000) as bar:
        bar.advance(2_000)
    assert re.fullmatch(r"evaluate: 2,000 of 4,000, [\d,]+/s\n", capsys.readouterr().out)


def test_terminal_shows_a_bar_with_the_latest_status_and_without_colors_lines():
    output = run_in_terminal()
    assert "4/4  loss 0.5" in output
    assert re.search(r"\d/s", output)
    assert "\x1b[" in output
    assert run_in_terminal(NO_COLOR="1") == "train: loss 0.5\r\n"
