"""What a terminal shows of a mistake: `error:` and `hint:`; a traceback only of a bug."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arithmetic.errors import CLOSED_PIPE, InvalidEquationError, UserError, cli_errors

ROOT = Path(__file__).parents[2]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DENIED = PermissionError(errno.EACCES, "Permission denied", "data/x")
DISK_HINT = "hint: free space or fix its permissions\n"


def start_python(code: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", f"from arithmetic.errors import cli_errors\n{code}"]
    env, pipe = os.environ | environment, subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [
        (UserError("no bread", "buy some"), 1, "error: no bread\nhint: buy some\n"),
        (UserError("no bread"), 1, "error: no bread\n"),
        (InvalidEquationError("no sign", "add one"), 1, "error: no sign\nhint: add one\n"),
        (FULL, 1, f"error: cannot write or read a file: {FULL.strerror}\n{DISK_HINT}"),
        (DENIED, 1, f"error: cannot write or read data/x: Permission denied\n{DISK_HINT}"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_user_errors_are_shown_without_traceback(error, status, output, capsys):
    with pytest.raises(SystemExit) as exit_status, cli_errors():
        raise error
    assert exit_status.value.code == status
    assert capsys.readouterr().err == output


@pytest.mark.parametrize("bug", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "gone", "x")])
def test_bugs_keep_their_traceback(bug):
    with pytest.raises(type(bug)), cli_errors():
        raise bug


def test_terminal_without_arrows_gets_escapes():
    code = "with cli_errors():\n    print('7/2= → 3r1')\n    raise SystemExit('÷ → fail')"
    process = start_python(code, PYTHONIOENCODING="latin-1")
    assert process.communicate() == (b"7/2= \\u2192 3r1\n", b"\xf7 \\u2192 fail\n")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_closed_pipe_ends_quietly(lines):
    """Closed before anything is written, and in the middle of a long output."""
    code = f"with cli_errors():\n    input()\n    for i in range({lines}): print('line', i)"
    process = start_python(code)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(b"\n")
    assert (process.returncode, errors) == (CLOSED_PIPE, b"")
