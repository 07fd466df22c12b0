"""Keep the state of a training on disk, so that a killed one resumes and ends in the same bytes.

A checkpoint is not an output: DVC removes a stage's outputs before it runs. It lies in
`.checkpoints/`, ignored by git and DVC, with the digest of everything that decides the result.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from filelock import FileLock, Timeout

from arithmetic.errors import UserError
from arithmetic.model import Transformer
from stages.optimizer import ScheduledOptimizers

CHECKPOINT = Path(".checkpoints/train.pt")
LOCK_SECONDS = 20.0  # an orphan of a killed `dvc` notices at its next step and ends


def save(
    key: str,
    model: Transformer,
    optimizers: ScheduledOptimizers,
    progress: dict[str, Any],
    path: Path = CHECKPOINT,
) -> None:
    """Replace a checkpoint atomically."""
    states = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
    draft = path.with_suffix(".draft")
    torch.save({"key": key, "progress": progress, **states}, draft)
    os.replace(draft, path)


def load(
    key: str, model: Transformer, optimizers: ScheduledOptimizers, path: Path = CHECKPOINT
) -> dict[str, Any] | None:
    """Set model and optimizers to the state saved under this key; return its progress, if any.

    A damaged file is ignored: a kill does not leave one, but a power cut can.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (RuntimeError, OSError, EOFError, UnpicklingError):
        print(f"train: ignoring {path}, which is damaged", flush=True)
        return None
    if state["key"] != key:
        return None
    model.load_state_dict(state["model"])
    optimizers.load_state_dict(state["optimizers"])
    progress: dict[str, Any] = state["progress"]
    return progress


@contextmanager
def exclusive() -> Iterator[None]:
    """Allow one training in this directory; remove the checkpoints when it has succeeded.

    Raises:
        UserError: another training is still running after LOCK_SECONDS.
    """
    CHECKPOINT.parent.mkdir(exist_ok=True)
    try:
        with FileLock(CHECKPOINT.with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield
            for path in CHECKPOINT.parent.glob("*.pt"):
                path.unlink()
    except Timeout as error:
        raise UserError(
            "another training is running in this directory", "wait for it or end it"
        ) from error
