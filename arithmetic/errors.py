"""Define the errors a user can cause and how a command line shows them.

    UserError                    a message with the value, and a hint with the fix
    ├── InvalidEquationError     the grammar rejects the text (also a ValueError)
    ├── InvalidParamsError       params.yaml holds something impossible
    ├── InvalidModelError        a model directory is missing, damaged or of another format
    └── RegistryError            see registry/exceptions.py

Any other exception that reaches the terminal is a bug and keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Describe a user's mistake: `str(error)` is the message, `error.hint` the fix."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint


class InvalidEquationError(UserError, ValueError):
    """Reject a text that is not an equation of the grammar.

    Attributes:
        code: the reason as one word: `empty`, `unknown_character`, `no_equals_sign`, `malformed`,
            `unknown_operation`, `out_of_range` or `division_by_zero`.
    """

    def __init__(self, message: str, hint: str = "", code: str = "malformed"):
        super().__init__(message, hint)
        self.code = code


class InvalidParamsError(UserError):
    """Reject params with an unknown key, a wrong type or an impossible combination."""


class InvalidModelError(UserError):
    """Reject a model directory that is missing, damaged or of another format."""


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
INTERRUPTED = 130  # a shell's exit status for SIGINT
CLOSED_PIPE = 141  # and for SIGPIPE


@contextmanager
def cli_errors() -> Iterator[None]:
    """Turn a UserError into `error:` and `hint:` on stderr and exit status 1, for every `main()`.

    A full disk is shown the same way, Ctrl-C as `interrupted` (status 130); a closed pipe
    (`… | head`) ends the process quietly, and a terminal without the characters gets escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _fail(error.message, error.hint)
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        path = error.filename or "a file"
        _fail(f"cannot write or read {path}: {error.strerror}", "free space or fix its permissions")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _fail(message: str, hint: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    raise SystemExit(1) from None
