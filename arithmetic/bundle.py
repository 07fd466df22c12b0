"""A model on disk: one folder of exactly three files, known by one digest.

    config.json          the grammar and the model's shape
    weights.safetensors  the parameters
    decoder.onnx         the serving graph, greedy decoding inside

No pickle. The digest covers the bytes of all three, so a registered version, a file on disk and a
running service can be compared by one line of text. This module does not import torch: serving
uses it.
"""

import hashlib
from pathlib import Path

from arithmetic import config
from arithmetic.errors import BrokenBundle

CONFIG, DECODER, WEIGHTS = config.NAME, "decoder.onnx", "weights.safetensors"
FILES = (CONFIG, DECODER, WEIGHTS)


def file_digest(path: Path) -> str:
    """SHA-256 of one file, hexadecimal.

    Raises:
        BrokenBundle: the file is missing or cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BrokenBundle(
            f"{path} cannot be read ({error.strerror}); run `dvc repro` to make the bundle"
        ) from error


def digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the three files, in order; raises BrokenBundle."""
    lines = [f"{name} {file_digest(folder / name)}\n" for name in FILES]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
