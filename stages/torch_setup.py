"""How a stage's process runs: one thread, the same bytes everywhere, on the cores there are."""

import os

import torch

from stages import REPRODUCIBLE_ENVIRONMENT


def single_threaded() -> None:
    """One thread and deterministic algorithms.

    The environment must have been set before torch loaded, which importing `stages` does.
    """
    for name, value in REPRODUCIBLE_ENVIRONMENT.items():
        assert os.environ.get(name) == value, f"{name} changed after `stages` was imported"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
