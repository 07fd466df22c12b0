"""Is an answer right, and in which way is it wrong: the terms of `stages/evaluate.py`.

Stages and serving may not import each other, so until these lines live in `arithmetic` a test
compares both on the same answers (tests/test_checking.py).
"""

from dataclasses import dataclass
from functools import lru_cache

from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from arithmetic.layouts import Answer


@dataclass(frozen=True)
class Verdict:
    """One answer judged.

    Attributes:
        expected: the exact answer.
        wrong: the answer's text is another, or it never ended.
        hallucination: it is no integer at all.
        infinite: no END where one belongs.
        out_of_range: an integer that no equation of this operation in the domain has.
    """

    expected: str
    wrong: bool
    hallucination: bool = False
    infinite: bool = False
    out_of_range: bool = False


def judge(equation: Equation, answer: Answer, grammar: Grammar) -> Verdict:
    """Compare an answer with the exact one."""
    expected = solve(equation)
    if answer.text == expected and answer.ended:
        return Verdict(expected, wrong=False)
    out_of_range = False
    if answer.is_integer:
        lowest, highest = answer_range(equation.operation, grammar)
        out_of_range = not lowest <= int(answer.text.split("r")[0]) <= highest
    return Verdict(expected, True, not answer.is_integer, not answer.ended, out_of_range)


@lru_cache
def answer_range(operation: str, grammar: Grammar) -> tuple[int, int]:
    """The smallest and largest exact (first) number, from the corners of an operation's domain."""
    seconds = (OPERATIONS[operation].smallest_operand_2, grammar.max_operand)
    numbers = [
        int(OPERATIONS[operation].compute(a, b)[0])
        for a in (0, grammar.max_operand)
        for b in seconds
    ]
    return min(numbers), max(numbers)
