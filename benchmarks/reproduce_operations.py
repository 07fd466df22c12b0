"""Record which operations of torch a piece of code uses, and which were compared between CPUs.

Recorded below autograd, so the backward pass and the optimizers are included. An operation has the
types of its tensors in its name: a kernel for float64 is another one than for float32.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.results_file import RESULTS

RESULT = RESULTS / "reproduce-cpus.json"


class Operations(TorchDispatchMode):
    """Collect the operations called inside the `with` block in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call one operation and note it."""
        result = func(*args, **(kwargs or {}))
        tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor))
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
        self.seen.add(" ".join([str(func), *kinds]))
        return result


def find_unverified(seen: set[str], result: Path = RESULT) -> list[str]:
    """Return the operations that had no equal hashes on every CPU when they were last compared."""
    content = json.loads(result.read_text(encoding="utf-8"))
    return sorted(seen - set(content["operations"] if content["equal"] else ()))
