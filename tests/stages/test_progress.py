"""A bar in a terminal, plain lines elsewhere."""

import os
import pty
import subprocess
import sys

from stages.progress import ProgressBar
from tests.small_project import ROOT

CODE = """
from stages.progress import ProgressBar
with ProgressBar("train", 4) as bar:
    bar.advance(2, "loss 0.5")
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


def test_status_is_a_line_where_there_is_no_terminal(capsys):
    with ProgressBar("train", 4) as bar:
        bar.advance(2, "loss 0.5")
        bar.advance(2)
    assert capsys.readouterr().out == "train: loss 0.5\n"


def test_quiet_bar_prints_nothing(capsys):
    with ProgressBar("train", 4, is_quiet=True) as bar:
        bar.advance(2, "loss 0.5")
    assert capsys.readouterr().out == ""


def test_terminal_shows_a_bar_with_the_latest_status():
    output = run_in_terminal()
    assert "4/4  loss 0.5" in output
    assert "\x1b[" in output


def test_terminal_without_colors_gets_lines():
    assert run_in_terminal(NO_COLOR="1") == "train: loss 0.5\r\n"
