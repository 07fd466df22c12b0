"""Describe how questions are distributed, and measure how far two distributions are apart.

Training writes the profile of its data into the model directory; the service compares the inputs
it gets with it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from arithmetic.artifacts import INPUT_PROFILE, REPRODUCE
from arithmetic.errors import InvalidModelError
from arithmetic.grammar import Grammar, Operands, count_digits

MAGNITUDES = 10  # bins of equal width from 0 to max_operand

Profile = dict[str, dict[str, int]]  # feature, bin, count


def profile(by_operation: Mapping[str, Operands], grammar: Grammar) -> Profile:
    """Count the features of equations: the operation, each operand's digits and magnitude.

    Args:
        by_operation: operands [N] and [N] of each operation.
        grammar: the domain; every bin is present, with 0 where nothing falls into it.
    """
    result: Profile = {"operation": dict.fromkeys(grammar.operations, 0)}
    for name in ("operand_1", "operand_2"):
        result[f"{name}_digits"] = {str(n + 1): 0 for n in range(grammar.digits)}
        result[f"{name}_magnitude"] = {str(n): 0 for n in range(MAGNITUDES)}
    for operation, operands in by_operation.items():
        result["operation"][operation] += len(operands[0])
        for name, values in zip(("operand_1", "operand_2"), operands, strict=True):
            _count(result[f"{name}_digits"], count_digits(values) - 1)
            magnitudes = values * MAGNITUDES // (grammar.max_operand + 1)
            _count(result[f"{name}_magnitude"], magnitudes)
    return result


def _count(bins: dict[str, int], indices: np.ndarray) -> None:
    counts = np.bincount(indices, minlength=len(bins)).tolist()
    for name, count in zip(bins, counts, strict=True):
        bins[name] += count


def write_profile(directory: Path, content: Profile) -> None:
    """Write the profile into a model directory."""
    text = json.dumps(content, indent=1) + "\n"
    (directory / INPUT_PROFILE).write_text(text, encoding="utf-8")


def read_profile(directory: Path, grammar: Grammar) -> Profile:
    """Read a model directory's profile; raise InvalidModelError if it is not of this grammar."""
    path = directory / INPUT_PROFILE
    try:
        content: Profile = json.loads(path.read_bytes())
        for feature, bins in profile({}, grammar).items():
            if content[feature].keys() != bins.keys() or min(content[feature].values()) < 0:
                raise ValueError(f"other bins of {feature}")
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise InvalidModelError(f"{path} is not a profile of inputs: {error}", REPRODUCE) from error
    return content


def psi(expected: Mapping[str, int], actual: Mapping[str, int]) -> float:
    """Return the population stability index of two counts over the same bins.

    By custom a value under 0.1 is stable, one over 0.25 another population. Half an input is added
    to each bin, so that an empty bin is improbable and not impossible.
    """
    totals = [sum(counts.values()) + 0.5 * len(expected) for counts in (expected, actual)]
    result = 0.0
    for name in expected:
        p, q = (expected[name] + 0.5) / totals[0], (actual[name] + 0.5) / totals[1]
        result += (q - p) * math.log(q / p)
    return result
