"""Which operations of torch a piece of code really uses.

Seen below autograd, so what a backward pass and an optimiser call is there too. Each is named as
torch names it, with the types of its tensors: a kernel for float64 is another one than for float32.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arithmetic.errors import Problem

# Written by `make reproduce-cpus`: an operation is verified when a training that used it had the
# same hashes on every CPU.
RESULT = Path(__file__).resolve().parent / "results" / "reproduce-cpus.json"


class Operations(TorchDispatchMode):
    """Collects the operations called inside the `with` block in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor))
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
        self.seen.add(" ".join([str(func), *kinds]))
        return result


def verified(result: Path = RESULT) -> set[str]:
    """The operations whose hashes were equal on every CPU.

    Raises:
        Problem: they were not equal when they were last compared.
    """
    found = json.loads(result.read_text(encoding="utf-8"))
    if not found["equal"]:
        raise Problem(f"{result} says that CPUs differ, so it verifies no operation")
    return set(found["operations"])


def refuse_unverified(seen: set[str], known: set[str]) -> None:
    """Raises Problem, naming it, if an operation was never compared between CPUs."""
    unknown = sorted(seen - known)
    if unknown:
        raise Problem(
            f"training uses {', '.join(unknown)}, which was never compared between CPUs: run "
            "`make reproduce-cpus`, and where the hashes differ use another operation "
            "(docs/reproducibility.md names some)"
        )
