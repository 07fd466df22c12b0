"""A fixed set of equations that a version has to answer before it may serve.

It finds what digests cannot: files that are the registered ones and still do not answer here (a
graph that this onnxruntime runs differently, a mixed-up version). How many wrong answers a version
may give is what its own certificate admits over the whole domain: none, for an exact one.
"""

import random
from functools import lru_cache

from arithmetic.engine import Engine
from arithmetic.errors import BrokenBundle
from arithmetic.grammar import OPERATIONS, Equation, Grammar, solve
from arithmetic.judging import judge

RANDOM_PAIRS = 100
_BATCH = 64


@lru_cache
def equations(grammar: Grammar) -> tuple[Equation, ...]:
    """Every pair of the domain's corners for each operation, and random pairs, always the same."""
    largest, digits = grammar.max_operand, grammar.digits
    corners = {0, 1, largest, largest - 1, largest // 2}
    corners |= {10**n for n in range(digits)} | {10**n - 1 for n in range(1, digits)}
    drawn = random.Random(0)
    pairs = [(a, b) for a in sorted(corners) for b in sorted(corners)]
    pairs += [(drawn.randint(0, largest), drawn.randint(0, largest)) for _ in range(RANDOM_PAIRS)]
    return tuple(
        Equation(a, operation, b)
        for operation in grammar.operations
        for a, b in dict.fromkeys(pairs)  # a certificate counts each equation once
        if b >= OPERATIONS[operation].smallest_operand_2
    )


def check(engine: Engine, version: str, admitted: int) -> int:
    """Let the engine answer the fixed set; returns how many answers were wrong.

    Raises:
        BrokenBundle: more than `admitted` are wrong, or the model cannot answer at all.
    """
    asked = equations(engine.grammar)
    wrong = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        try:
            answers = engine.answer(batch)
        except Exception as error:  # whatever a foreign graph raises, it does not serve
            raise BrokenBundle(
                f"version {version} fails in the self-test ({' '.join(repr(error).split())[:200]})"
                "; promote another version"
            ) from error
        for equation, answer in zip(batch, answers, strict=True):
            expected = solve(equation)
            if judge(answer, expected, equation.operation, engine.grammar).wrong:
                wrong.append(f"{equation}{answer.text} instead of {expected}")
    if len(wrong) > admitted:
        raise BrokenBundle(
            f"version {version} fails the self-test: {len(wrong)} of {len(asked)} answers are "
            f"wrong ({wrong[0]}) and its certificate admits {admitted}; promote another version"
        )
    return len(wrong)
