"""What a terminal shows of a problem: one sentence and a status, a traceback only for a bug."""

import errno
import os

import pytest

from arithmetic.errors import Problem, reported


@pytest.mark.parametrize(
    ("problem", "status", "says"),
    [
        (Problem("no bread; buy some"), 1, "error: no bread; buy some\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "error: a file cannot be written"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), 1, "error: data/x cannot"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_user_s_problem_is_one_line(problem, status, says, capsys):
    with pytest.raises(SystemExit) as left, reported():
        raise problem
    assert left.value.code == status
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.count("\n") == 1


@pytest.mark.parametrize("bug", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "gone", "x")])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)), reported():
        raise bug
