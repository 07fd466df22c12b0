"""A training's state on disk, so that a killed one goes on where it was and ends in the same bytes.

Checkpoints are no outputs: DVC removes a stage's outputs before it runs. They live in
`.checkpoints/`, ignored by git and DVC, under a key that stands for everything that decides the
result: params, data, code, torch. One file holds everything and is replaced atomically, so there is
never half of one. A lock makes sure of one trainer a key.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import arithmetic
import stages
from arithmetic.errors import Problem

FOLDER = Path(".checkpoints")
LOCK_SECONDS = 20.0  # an orphan of a killed `dvc` notices at its next step and lets go


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def key(params: Any, data: list[Tensor]) -> str:
    """Digest of all that decides a training: params, data, the code loaded so far, versions."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode())
    for tensor in data:
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    # By files: the module that runs as `python -m stages.train` is called __main__.
    packages = [Path(str(package.__file__)).parent for package in (arithmetic, stages)]
    loaded = {Path(getattr(module, "__file__", None) or "") for module in sys.modules.values()}
    for source in sorted(path for path in loaded if path.parent in packages):
        digest.update(f"{source.parent.name}/{source.name}".encode() + source.read_bytes())
    digest.update(f"torch {torch.__version__} numpy {np.__version__}".encode())
    return digest.hexdigest()[:32]


def save(name: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of this key, all or nothing; raises Problem if there is no room."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    draft = path.with_suffix(f".{os.getpid()}.draft")
    tensors = {key: tensor.contiguous() for key, tensor in checkpoint.tensors.items()}
    write_tensors(tensors, draft, {"state": json.dumps(checkpoint.state)})
    os.replace(draft, path)


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """A safetensors file; without metadata its bytes are a function of the tensors alone.

    Raises:
        Problem: it cannot be written, for example for want of room.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise Problem(f"{path} cannot be written ({error}); make room and repeat") from error


def load(name: str) -> Checkpoint | None:
    """The checkpoint of this key, None if there is none or it does not read."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            return Checkpoint({key: file.get_tensor(key) for key in file.keys()}, state)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"train: {path} does not read ({error}); starting from the beginning", flush=True)
        return None


def remove(name: str) -> None:
    """Forget the checkpoint of this key, and drafts that killed trainers left."""
    for path in FOLDER.glob(f"{name}.*"):
        if not path.name.endswith(".lock"):
            path.unlink(missing_ok=True)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One trainer a key; raises Problem if another one is still at work after LOCK_SECONDS."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("a+") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise Problem(
                        f"another training of the same params and data is at work (process "
                        f"{file.read().strip() or 'unknown'}); wait for it or end it"
                    ) from None
                time.sleep(0.2)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield  # the lock goes with the file, also when the process is killed
