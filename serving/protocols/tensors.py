"""Tensors of text as the Open Inference Protocol carries them: in JSON, or as bytes behind it.

The binary extension puts tensors behind the JSON; the header `Inference-Header-Content-Length`
says where the JSON ends, and each tensor's `binary_data_size` how long it is. A BYTES tensor is,
for each element in row-major order, its length (uint32, little-endian) and its bytes. NVIDIA's
client uses it unless told otherwise.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from serving.protocols.body import Refused, kind, texts

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Tensor:
    """Text in a shape, row-major."""

    shape: tuple[int, ...]
    elements: list[str]


def read(entry: dict[str, Any], binary: bytes | None) -> Tensor:
    """One input of a request; raises Refused (400).

    Args:
        entry: its JSON.
        binary: its bytes, if they stand behind the JSON.
    """
    name = entry["name"]
    if entry.get("datatype") != "BYTES":
        raise Refused(400, f"input {name!r} must have the datatype BYTES")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and 0 <= size <= 1 << 20 for size in shape
    ):
        raise Refused(400, f"input {name!r} needs a shape: an array of sizes")
    if len(shape) > 8:
        raise Refused(400, f"input {name!r} has {len(shape)} dimensions; at most 8 are read")
    if binary is None:
        data = entry.get("data")
        if not isinstance(data, list):
            raise Refused(400, f"input {name!r} needs data: an array, and it is {kind(data)}")
        elements = texts(list(_flat(data)), f"element of {name!r} at")
    else:
        elements = texts(list(_unpacked(binary, name)), f"element of {name!r} at")
    if len(elements) != prod(shape):
        raise Refused(400, f"input {name!r} has {len(elements)} elements, and its shape is {shape}")
    return Tensor(tuple(shape), elements)


def pack(elements: list[str]) -> bytes:
    """BYTES elements in the binary extension's form."""
    encoded = [element.encode() for element in elements]
    return b"".join(part for one in encoded for part in (_LENGTH.pack(len(one)), one))


def _flat(data: list[Any], depth: int = 0) -> Iterator[Any]:
    """Elements of nested arrays: the protocol allows both nested and flat ones."""
    if depth > 8:
        raise Refused(400, "the data is nested too deeply; at most 8 dimensions are read")
    for element in data:
        if isinstance(element, list):
            yield from _flat(element, depth + 1)
        else:
            yield element


def _unpacked(binary: bytes, name: str) -> Iterator[str]:
    place = 0
    while place < len(binary):
        if place + _LENGTH.size > len(binary):
            raise Refused(400, f"the binary data of {name!r} ends within a length")
        (length,) = _LENGTH.unpack_from(binary, place)
        place += _LENGTH.size
        if place + length > len(binary):
            raise Refused(400, f"the binary data of {name!r} ends within an element")
        try:
            yield binary[place : place + length].decode()
        except UnicodeDecodeError as error:
            raise Refused(400, f"an element of {name!r} is not UTF-8") from error
        place += length
