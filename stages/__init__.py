"""Run the pipeline's stages: `python -m stages.train` and so on, from the repository's root.

Importing this package fixes how torch computes. The variables are read once, when torch loads, so
they have to be set before any stage imports it. With them a stage writes the same bytes on any
x86-64 CPU with AVX2, Intel or AMD, on any number of cores (docs/explanation/reproducibility.md).
"""

import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

REPRODUCIBLE_ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels: AVX2 even where there is AVX-512
    "MKL_CBWR": "COMPATIBLE",  # MKL: the one branch that Intel and AMD share
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",  # one order of summation
    "MKL_NUM_THREADS": "1",
}
MODEL = Path("model")  # the model directory, relative to the repository's root as all paths here
ORPHANED = "error: dvc was killed, so the stage stops\nhint: run `dvc repro` to continue"

os.environ.update(REPRODUCIBLE_ENVIRONMENT)


def exit_with_parent(parent: int, message: str = "") -> None:
    """End this process, whatever it does, soon after the process `parent` that started it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        with suppress(OSError):  # the terminal may be gone, too
            if message:
                print(message, file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():  # joblib's workers would wait for ever
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _report_interrupt(kind: type[BaseException], *details: Any) -> None:
    # For Ctrl-C while a stage still imports torch, outside of its `cli_errors`.
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, *details)


sys.excepthook = _report_interrupt

if os.environ.pop("DVC_STAGE", None):  # taken away, so that a stage's workers do not watch, too
    exit_with_parent(os.getppid(), ORPHANED)  # `dvc` that is killed leaves its child running

if importlib.util.find_spec("pandas") is None:  # `.venv/bin/dvc` outside of its environment
    print(
        f"error: {sys.executable} has none of the pipeline's packages\n"
        "hint: run `make setup`, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    raise SystemExit(1)
