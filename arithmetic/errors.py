"""What can go wrong for a user, as a tree of exceptions.

    Problem                 one sentence that names the cause and the mend
    ├── InvalidEquation     the grammar refuses the text (also a ValueError)
    ├── UnknownCharacter    the tokenizer has no such character (also a ValueError)
    ├── InvalidParams       params.yaml says something impossible
    ├── BrokenBundle        a model on disk is missing, damaged or of another format
    └── RegistryProblem     see `registry`: unreachable, no such version, promotion refused

A full disk and Ctrl-C are said in a sentence too (`reported`). Anything else that reaches the
terminal is a bug and keeps its traceback.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Problem(Exception):
    """A user's problem. `str(problem)` is one sentence naming the cause and the mend."""


class InvalidEquation(Problem, ValueError):
    """The text is not an equation of this grammar.

    Attributes:
        reason: what is wrong with it as one word, for counting: `empty`, `unknown_character`,
            `no_equals_sign`, `malformed`, `unknown_operation`, `out_of_range`, `division_by_zero`.
    """

    def __init__(self, message: str, reason: str = "malformed"):
        super().__init__(message)
        self.reason = reason


class UnknownCharacter(Problem, ValueError):
    """The text holds a character outside the vocabulary."""


class InvalidParams(Problem):
    """params.yaml has an unknown key, a wrong type or an impossible combination."""


class BrokenBundle(Problem):
    """A model folder that cannot be trusted to answer."""


class RegistryProblem(Problem):
    """Something between this project and MLflow; subclasses live in `registry`."""


# A disk that takes no more, or may not be written.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
_INTERRUPTED = 130  # what a shell makes of a process that SIGINT ended


@contextmanager
def reported() -> Iterator[None]:
    """Turn a `Problem` into `error: …` on stderr and exit status 1, for every `main()`."""
    try:
        yield
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(
            f"error: {error.filename or 'a file'} cannot be written or read ({error.strerror}); "
            "make room or mend its permissions, and repeat",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
