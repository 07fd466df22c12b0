"""Decoded answers against the exact ones, counted by operation and answer length."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arithmetic import layouts
from arithmetic.grammar import OPERATIONS, Grammar, answer_length, first_number, render
from arithmetic.judging import judge
from stages.certify import Equations

FAILURES_LISTED = 100


@dataclass
class Tally:
    """Counts over a set of equations; a group's exact match is 1 - errors / equations."""

    equations: Counter[tuple[str, int]] = field(default_factory=Counter)  # by operation, length
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    hallucinations: int = 0
    infinite_generation: int = 0
    out_of_range: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, operation: str, lengths: np.ndarray) -> None:
        """Equations by their answers' lengths [N]."""
        for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
            self.equations[operation, int(length)] += int(count)

    def judge(
        self, equations: Equations, generated: np.ndarray, expected: list[str], grammar: Grammar
    ) -> np.ndarray:
        """Compare decoded answers with the exact ones; which are wrong: [N] bool."""
        operation = equations.operation
        wrong = np.zeros(len(equations), bool)
        for row, right in enumerate(expected):
            answer = layouts.read_answer(operation, generated[row], grammar.digits)
            verdict = judge(answer, right, operation, grammar)
            self.hallucinations += verdict.hallucination
            self.infinite_generation += verdict.infinite_generation
            self.out_of_range += verdict.out_of_range
            if not verdict.wrong:
                continue
            wrong[row] = True
            self.errors[operation, len(str(abs(first_number(right))))] += 1
            if len(self.failures) < FAILURES_LISTED:
                a, b = equations.operand_1[row], equations.operand_2[row]
                asked = f"{a}{operation}{b}="
                self.failures.append({"equation": asked, "expected": right, "answer": answer.text})
        return wrong

    def report(self) -> dict[str, Any]:
        """The counts as they stand in evaluation.json."""
        by_operation: dict[str, Counter[str]] = {}
        by_length: dict[str, Counter[str]] = {}
        for (operation, length), count in sorted(self.equations.items()):
            wrong = self.errors[operation, length]
            for group in (
                by_operation.setdefault(operation, Counter()),
                by_length.setdefault(str(length), Counter()),
            ):
                group.update(equations=count, errors=wrong)
        return {
            **counts(self.equations.total(), self.errors.total()),
            "hallucinations": self.hallucinations,
            "infinite_generation": self.infinite_generation,
            "out_of_range": self.out_of_range,
            "by_operation": {key: counts(**by_operation[key]) for key in sorted(by_operation)},
            "by_answer_length": {key: counts(**by_length[key]) for key in sorted(by_length)},
        }


def counts(equations: int, errors: int) -> dict[str, Any]:
    """Exact match is rounded to eight places: one error in the domain shows, noise does not."""
    exact = round(1 - errors / equations, 8) if equations else None
    return {"exact_match": exact, "errors": errors, "equations": equations}


def exact_answers(equations: Equations) -> tuple[list[str], np.ndarray]:
    """Exact answers as text, and their lengths [N]."""
    numbers = OPERATIONS[equations.operation].compute(equations.operand_1, equations.operand_2)
    texts = [render(row) for row in zip(*(n.tolist() for n in numbers), strict=True)]
    return texts, answer_length(numbers[0])


def judge_all(
    tally: Tally, equations: list[Equations], generated: list[np.ndarray], grammar: Grammar
) -> None:
    """Count some decoded equations."""
    for part, rows in zip(equations, generated, strict=True):
        expected, lengths = exact_answers(part)
        tally.add(part.operation, lengths)
        tally.judge(part, rows, expected, grammar)
