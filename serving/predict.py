"""From an equation's text to the model's answer: what every route and protocol asks through."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from arithmetic.errors import InvalidEquation
from arithmetic.grammar import Equation
from arithmetic.layouts import Answer
from serving.live import Live, Served
from serving.problems import ServingProblem, Unavailable


class InvalidEquations(InvalidEquation):
    """Some of several texts are refused; `refusals` has (index, problem) of each."""

    def __init__(self, refusals: Sequence[tuple[int, InvalidEquation]]):
        said = "; ".join(f"equation {index}: {problem}" for index, problem in refusals)
        super().__init__(said, refusals[0][1].reason)
        self.refusals = tuple(refusals)


@dataclass(frozen=True)
class Asked:
    """An answer with what it answers and the version that gave it."""

    equation: Equation
    answer: Answer
    served: Served


def serving(live: Live) -> Served:
    """The version that answers now; raises Unavailable without one."""
    served = live.pick()
    if served is None:
        raise Unavailable(f"no model is loaded: {live.reason or 'still loading'}")
    return served


async def ask(live: Live, text: str, beam_width: int = 1, served: Served | None = None) -> Asked:
    """Answer one equation; by the version `served`, where one is given.

    Raises:
        InvalidEquation: the grammar of the served version refuses the text.
        ServingProblem: unavailable, overloaded, too late, or the model failed.
    """
    served = served or serving(live)
    equation = served.grammar.parse(text)
    return Asked(equation, await served.batcher.answer(equation, beam_width), served)


async def ask_many(
    live: Live, texts: Sequence[str], beam_width: int = 1, served: Served | None = None
) -> list[Asked]:
    """Answer equations by one version, behind the single ones; all or none.

    Raises:
        InvalidEquations: with the index of each text that the grammar refuses.
        ServingProblem: as `ask`; none of them is answered then.
    """
    served = served or serving(live)
    equations: list[Equation] = []
    refusals: list[tuple[int, InvalidEquation]] = []
    for index, text in enumerate(texts):
        try:
            equations.append(served.grammar.parse(text))
        except InvalidEquation as problem:
            refusals.append((index, problem))
    if refusals:
        raise InvalidEquations(refusals)
    futures = served.batcher.submit_many(equations, beam_width)
    try:
        answers = await asyncio.gather(*futures)
    except (ServingProblem, asyncio.CancelledError):
        for future in futures:  # what nobody waits for any more need not be computed
            future.cancel()
        raise
    return [Asked(e, a, served) for e, a in zip(equations, answers, strict=True)]
