"""What a request can run into, as exceptions that know their HTTP status.

ServingProblem
├── Unavailable   503  no model is loaded
├── Overloaded    503  the queue is full, with Retry-After
├── TooLate       504  no answer before the deadline
└── ModelFailed   500  the model raised on this very equation
"""

from typing import ClassVar

from arithmetic.errors import Problem


class ServingProblem(Problem):
    """`str(problem)` is the body's `detail`; `outcome` is the label in /metrics and in the log."""

    status: ClassVar[int]
    outcome: ClassVar[str]
    headers: ClassVar[dict[str, str]] = {}
    # Of those that are the client's doing: under which reason /metrics counts the input as refused.
    reason: ClassVar[str | None] = None


class Unavailable(ServingProblem):
    """No model is loaded."""

    status, outcome, headers = 503, "unavailable", {"Retry-After": "2"}


class Overloaded(ServingProblem):
    """The queue is full: refused at once, before the wait grows."""

    status, outcome, headers = 503, "overloaded", {"Retry-After": "1"}


class TooLate(ServingProblem):
    """The deadline passed before there was an answer."""

    status, outcome = 504, "too_late"


class ModelFailed(ServingProblem):
    """The model raised on this equation; its neighbours have their answers."""

    status, outcome = 500, "failed"


class WrongMediaType(ServingProblem):
    """The body is not sent as JSON."""

    status, outcome, reason = 415, "refused", "media_type"
