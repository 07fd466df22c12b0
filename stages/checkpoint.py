"""Keep the state of a training on disk, so that a killed one resumes and ends in the same bytes.

A checkpoint is not an output: DVC removes a stage's outputs before it runs. It lies in
`.checkpoints/`, ignored by git and DVC, with the digest of everything that decides the result.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from arithmetic.errors import UserError

DIGEST_SIZE = hashlib.sha256().digest_size
CHECKPOINT = Path(".checkpoints/train.pt")
LOCK_SECONDS = 20.0  # an orphan of a killed `dvc` notices at its next step and ends


def save(key: str, state: dict[str, Any], path: Path = CHECKPOINT) -> None:
    """Replace a checkpoint atomically; a digest comes first in the file."""
    buffer = io.BytesIO()
    torch.save({"key": key, **state}, buffer)
    content = buffer.getvalue()
    draft = path.with_suffix(".draft")
    draft.write_bytes(hashlib.sha256(content).digest() + content)
    os.replace(draft, path)


def load(key: str, path: Path = CHECKPOINT) -> dict[str, Any] | None:
    """Return the state saved under this key, None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        print(f"train: ignoring {path}, which is damaged", flush=True)
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state if state.pop("key") == key else None


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
