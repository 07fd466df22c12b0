"""Compute the model's logits and attention in numpy: the service has no torch.

The same function as `arithmetic.model.Transformer`, for one sequence and without a cache.
"""

import json
import math
from pathlib import Path

import numpy as np

from arithmetic.artifacts import ModelConfig

TABLE_SCALE = 5.0  # as in arithmetic.model

Weights = dict[str, np.ndarray]


def read_weights(path: Path) -> Weights:
    """Read a safetensors file of float32: 8 bytes of length, a JSON header, the data."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    weights = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            data = content[start + first : start + end]
            weights[name] = np.frombuffer(data, "<f4").reshape(entry["shape"])
    return weights


def forward(
    weights: Weights, config: ModelConfig, fmt: int, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [T, vocabulary] and attention [layers, heads, T, T] for ids [T].

    Args:
        fmt: index of the sequence format among those of the grammar.
    """
    length = len(ids)
    hidden = np.triu(np.full((length, length), -np.inf, np.float32), 1)
    x = weights["tokens"][ids] + weights[f"positions.{fmt}"][:length]
    attention = []
    for layer in range(config.layers):
        block = f"blocks.{layer}."
        matrices = weights[block + "attention.matrices"]
        table = weights[f"{block}attention.bias.tables.{fmt}"]
        scores = hidden + TABLE_SCALE * table[:, :length, :length]
        # [matrices, heads, T, d_head]: (query, key,) value; the last matrix writes the output.
        projected = (rms_norm(x) @ matrices[:-1].swapaxes(1, 2)).reshape(
            len(matrices) - 1, length, config.heads, -1
        )
        *query_key, value = projected.swapaxes(1, 2)
        if query_key:
            query, key = query_key
            scores += query @ key.swapaxes(1, 2) / math.sqrt(key.shape[-1])
        attention.append(softmax(scores))
        mixed = (attention[-1] @ value).swapaxes(0, 1).reshape(length, -1)
        x = x + mixed @ matrices[-1].T
        up = rms_norm(x) @ weights[block + "up.weight"].T + weights[block + "up.bias"]
        x = x + np.maximum(up, 0) @ weights[block + "down.weight"].T
    return rms_norm(x) @ weights["head"].T, np.stack(attention)


def rms_norm(x: np.ndarray) -> np.ndarray:
    """Scale to unit root mean square."""
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis."""
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
