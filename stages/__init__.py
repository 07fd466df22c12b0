"""The pipeline: each stage is a function of files.

Importing this package fixes how torch will compute. The variables are read once, when torch
loads, so they must be in the environment before any stage imports it; a package's `__init__` is
the one place that always runs first. With them a stage writes the same bytes on any x86-64 CPU
with AVX2, Intel or AMD, whatever the number of cores (docs/reproducibility.md). It is also the
place where a stage learns who its parent is, before torch takes its time to load.
"""

import os

from arithmetic.errors import Problem

REPRODUCIBLE_ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels: AVX2 even where there is AVX-512
    "MKL_CBWR": "COMPATIBLE",  # MKL: the one branch that Intel and AMD share
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",  # one order of summation
    "MKL_NUM_THREADS": "1",
}

os.environ.update(REPRODUCIBLE_ENVIRONMENT)

_PARENT = os.getppid()


def stop_if_orphaned() -> None:
    """Raise Problem in a stage whose `dvc` was killed: DVC leaves its child at work."""
    if "DVC_STAGE" in os.environ and os.getppid() != _PARENT:
        raise Problem("dvc is gone, so the stage stops; `dvc repro` goes on with it")
