"""Make torch compute the same bytes everywhere; every stage that uses torch calls this first."""

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
