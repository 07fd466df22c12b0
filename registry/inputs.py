"""How a version's training questions were distributed: which operations, how large the operands.

`record` notes it with the run that a version came from, and the service compares what it is asked
with it. Everything is counts by feature and bin, so that little travels.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from arithmetic.errors import RegistryProblem
from arithmetic.grammar import OPERATIONS, Grammar

# Among the artifacts of a run, and beside a downloaded bundle.
ARTIFACT = "metrics/input_profile.json"
MAGNITUDES = 10  # bins of equal width from 0 to max_operand

Profile = dict[str, dict[str, int]]  # feature, bin, count
Operands = tuple[np.ndarray, np.ndarray]


def profile(by_operation: Mapping[str, Operands], grammar: Grammar) -> Profile:
    """Counts of the features of equations: operations, and each operand's digits and magnitude.

    Args:
        by_operation: operands [N] and [N] of each operation.
        grammar: the domain; its bins are all there, with 0 where nothing falls into them.
    """
    found: Profile = {"operation": dict.fromkeys(grammar.operations, 0)}
    for name in ("operand_1", "operand_2"):
        found[f"{name}_digits"] = {str(n + 1): 0 for n in range(grammar.digits)}
        found[f"{name}_magnitude"] = {str(n): 0 for n in range(MAGNITUDES)}
    for operation, operands in by_operation.items():
        found["operation"][operation] += len(operands[0])
        for name, values in zip(("operand_1", "operand_2"), operands, strict=True):
            edges = [10**n for n in range(1, grammar.digits)]
            _count(found[f"{name}_digits"], np.searchsorted(edges, values, "right"))
            size = grammar.max_operand + 1
            _count(found[f"{name}_magnitude"], values * MAGNITUDES // size)
    return found


def _count(bins: dict[str, int], indices: np.ndarray) -> None:
    names = list(bins)
    for index, count in enumerate(np.bincount(indices, minlength=len(names)).tolist()):
        bins[names[index]] += count


def uniform(grammar: Grammar) -> Profile:
    """Every equation of the domain once: what there is to compare with where nothing was noted."""
    numbers = np.arange(grammar.max_operand + 1, dtype=np.int64)
    operands = {
        name: (numbers, numbers[OPERATIONS[name].smallest_operand_2 :])
        for name in grammar.operations
    }
    found = profile(operands, grammar)
    found["operation"] = {name: grammar.count(name) for name in grammar.operations}
    return found


def write(path: Path, found: Profile) -> None:
    """As JSON, all of it or nothing."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def read(content: bytes, grammar: Grammar) -> Profile:
    """What `write` wrote for this grammar; raises RegistryProblem if it is something else."""
    try:
        found: Profile = {
            str(feature): {str(name): int(count) for name, count in bins.items()}
            for feature, bins in json.loads(content).items()
        }
        for feature, bins in profile({}, grammar).items():
            if found[feature].keys() != bins.keys() or min(found[feature].values()) < 0:
                raise ValueError(f"other bins of {feature}")
    except (ValueError, AttributeError, TypeError, KeyError, OverflowError) as error:
        raise RegistryProblem(
            f"{ARTIFACT} is no profile of training inputs; record the run again"
        ) from error
    return found


def beside(bundle: Path) -> Path:
    """Where a service keeps the profile of a downloaded bundle."""
    return bundle.with_name(f"{bundle.name}.inputs.json")
