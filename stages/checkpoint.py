"""Describe a training, and keep its state on disk: a killed one resumes and ends in the same bytes.

A checkpoint is not an output: DVC removes a stage's outputs before it runs. It lies in
`.checkpoints/`, ignored by git and DVC, with the key of the job.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from arithmetic.artifacts import ModelConfig
from arithmetic.errors import InvalidParamsError, UserError
from arithmetic.grammar import Grammar, Operands
from arithmetic.model import Transformer
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.optimizer import ScheduledOptimizers
from stages.params import Params

CHECKPOINT = Path(".checkpoints/train.pt")
LOCK_SECONDS = 20.0  # the training of a killed `dvc` ends within a second


@dataclass
class Job:
    """Hold everything that decides the result of a training.

    Attributes:
        train, validation: equations by operation.
        key: SHA-256 over params, equations, code and libraries.

    Raises:
        InvalidParamsError: a batch is larger than the data.
    """

    params: Params
    train: dict[str, Operands]
    validation: dict[str, Operands]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        all_formats = self.params.generate.formats
        for fmt, size in zip(all_formats, self.params.train.batch_sizes, strict=True):
            rows = sum(len(a) for name, (a, _) in self.train.items() if name in fmt.operations)
            if rows < size:
                raise InvalidParamsError(
                    f"train.batch_sizes has {size} for {fmt.name}, which has {rows} equations",
                    "lower it or raise generate.train_size",
                )
        content = self.params.model_dump_json(exclude={"export", "evaluate", "promote"})
        key = hashlib.sha256(f"{content} {torch.__version__} {np.__version__}".encode())
        for operands in (*self.train.values(), *self.validation.values()):
            key.update(repr(operands[0].shape).encode() + np.stack(operands).tobytes())
        root = Path(__file__).parents[1]
        for path in sorted([*root.glob("arithmetic/*.py"), *root.glob("stages/*.py")]):
            key.update(path.name.encode() + path.read_bytes())
        self.key = key.hexdigest()

    @property
    def grammar(self) -> Grammar:
        """Return the domain."""
        return self.params.generate.grammar

    @property
    def prompt(self) -> int:
        """Return the tokens of a prompt, in every format; the losses are taken on what follows."""
        return self.params.generate.formats[0].lengths(self.grammar.digits).prompt

    @property
    def config(self) -> ModelConfig:
        """Return the model's shape."""
        lengths = [fmt.lengths(self.grammar.digits) for fmt in self.params.generate.formats]
        return ModelConfig(
            vocabulary_size=VOCABULARY_SIZE,
            # The last token, END, is predicted and never read.
            sequence_lengths=[part.prompt + part.generated - 1 for part in lengths],
            **self.params.model.model_dump(),
        )


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
