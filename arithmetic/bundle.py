"""A model on disk: one folder, known by one digest.

    config.json                  the grammar and the model's shape
    weights.safetensors          the parameters
    decoders/addition.onnx       the serving graph of each operation, greedy decoding inside
    decoders/addition.beam.onnx  the same with beam search, of any width

No pickle. The digest covers the bytes of all files, so a registered version, a folder on disk and a
running service can be compared by one line of text. This module does not import torch: serving
uses it.
"""

import hashlib
from pathlib import Path

from arithmetic import config
from arithmetic.errors import BrokenBundle
from arithmetic.grammar import OPERATIONS

CONFIG, WEIGHTS, DECODERS = config.NAME, "weights.safetensors", "decoders"


def decoder(operation: str, beam: bool = False) -> str:
    """Of an operation's serving graph, the path within a bundle."""
    return f"{DECODERS}/{OPERATIONS[operation].name}{'.beam' if beam else ''}.onnx"


def files(operations: tuple[str, ...]) -> tuple[str, ...]:
    """The paths within a bundle that answers these operations, in the order of their names."""
    graphs = [decoder(operation, beam) for operation in operations for beam in (False, True)]
    return tuple(sorted([CONFIG, WEIGHTS, *graphs]))


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
    """SHA-256 over the names and digests of the files, in order; raises BrokenBundle."""
    names = files(config.load_config(folder).grammar.operations)
    lines = [f"{name} {file_digest(folder / name)}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
