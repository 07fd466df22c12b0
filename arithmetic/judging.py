"""Right or wrong, and in which way: what the evaluation counts and the service measures.

wrong                 not the exact answer, or the exact answer without an end
hallucination         no integer (of a division: no quotient and remainder)
infinite generation   no END where the answer is complete
out of range          an integer that no equation of this operation has as its answer
"""

from dataclasses import dataclass

from arithmetic.grammar import Grammar, first_number
from arithmetic.layouts import Answer


@dataclass(frozen=True)
class Verdict:
    """One answer compared with the exact one; several can hold at once."""

    wrong: bool
    hallucination: bool
    infinite_generation: bool
    out_of_range: bool


def judge(answer: Answer, expected: str, operation: str, grammar: Grammar) -> Verdict:
    """What is wrong with `answer`, if anything; `expected` is `grammar.solve`'s text."""
    out_of_range = False
    if answer.is_integer:
        lowest, highest = grammar.answer_range(operation)
        out_of_range = not lowest <= first_number(answer.text) <= highest
    return Verdict(
        wrong=answer.text != expected or not answer.ended,
        hallucination=not answer.is_integer,
        infinite_generation=not answer.ended,
        out_of_range=out_of_range,
    )
