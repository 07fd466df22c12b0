"""Which versions were Production, oldest first: one tag of the registered model, and what it means.

The alias is the truth about the present. When it is not where this history left it, someone moved
it by hand in MLflow's pages, and the history takes that in before it goes on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arithmetic.errors import RegistryProblem
from registry import MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "production_history"
LONGEST = 200  # versions kept; a store refuses tags that are too long


@dataclass(frozen=True)
class History:
    """The present Production and the versions before it, the latest last."""

    current: str | None = None
    earlier: tuple[str, ...] = ()

    def noticing(self, alias: str | None) -> "History":
        """The history once a move by hand is taken in: back to the previous, or on to another."""
        if alias == self.current:
            return self
        if alias is not None and self.earlier and self.earlier[-1] == alias:
            return History(alias, self.earlier[:-1])
        return History(alias, self._with_current())

    def promoted(self, version: str) -> "History":
        """After a promotion."""
        return History(version, self._with_current())

    def target(self, exists: Callable[[str], bool]) -> str | None:
        """The latest earlier version that is still there, None if there is none."""
        there = (v for v in reversed(self.earlier) if v != self.current and exists(v))
        return next(there, None)

    def rolled_back(self, version: str) -> "History":
        """After a return to an earlier version: what followed it is forgotten."""
        last = len(self.earlier) - 1 - self.earlier[::-1].index(version)
        return History(version, self.earlier[:last])

    def text(self) -> str:
        """The tag's value."""
        return json.dumps({"current": self.current, "earlier": list(self.earlier)})

    def _with_current(self) -> tuple[str, ...]:
        added = () if self.current is None else (self.current,)
        return (self.earlier + added)[-LONGEST:]


def read_history(client: "MlflowClient") -> History:
    """The history that the registered model carries; raises as `from_text`."""
    return from_text(client.get_registered_model(MODEL).tags.get(TAG))


def from_text(text: str | None) -> History:
    """The history that the tag's value means; empty without one.

    Raises:
        RegistryProblem: the tag was edited into something else.
    """
    if text is None:
        return History()
    try:
        content = json.loads(text)
        current, earlier = content["current"], tuple(content["earlier"])
        if not all(isinstance(one, str) for one in (*earlier, current or "")):
            raise ValueError("versions are text")
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryProblem(
            f"the tag {TAG} of {MODEL} was edited and is no history any more; delete the tag in "
            "MLflow's pages: Production stays, and the way back begins anew"
        ) from error
    return History(current, earlier)


def write_history(client: "MlflowClient", history: History) -> None:
    """Replace the history in one request."""
    client.set_registered_model_tag(MODEL, TAG, history.text())
