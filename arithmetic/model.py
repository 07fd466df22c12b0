"""The model: a decoder-only Transformer, small enough to read in one sitting.

Pre-norm blocks of causal self-attention and a ReLU MLP, RMSNorm, learned absolute positions, an
untied head, float32, no dropout (Vaswani et al. 2017; RMSNorm: Zhang and Sennrich 2019). Two
layers are needed and enough: one layer of 52,352 parameters left 1,700-5,000 errors where two of
7,056 left none.

The model knows tokens and positions, nothing of equations.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arithmetic.config import ModelConfig


@dataclass
class Cache:
    """Keys and values of the tokens already read, per layer [B, heads, T, d_head]."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    length: int = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append this step's keys and values of one layer and return all so far."""
        if layer == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], key], dim=2)
            self.values[layer] = torch.cat([self.values[layer], value], dim=2)
        return self.keys[layer], self.values[layer]


class Norm(nn.Module):
    """RMSNorm: scale to unit root mean square, then a learned gain.

    `rsqrt`, not `sqrt`: MKL's `sqrt` differs between CPUs (docs/reproducibility.md).
    """

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.gain


class Attention(nn.Module):
    """Causal self-attention without biases. The four square matrices are one parameter
    [4, d, d] (query, key, value, output), so that the optimiser treats them in one batch."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads = config.heads
        self.matrices = nn.Parameter(torch.empty(4, config.d_model, config.d_model))

    def forward(self, x: Tensor, layer: int, cache: Cache | None) -> Tensor:
        # Plain integers and a free batch axis: the exported graph then computes no shapes.
        length, width = int(x.shape[1]), self.matrices.shape[1]
        d_head = width // self.heads
        query, key, value = (
            (x @ matrix.T).reshape(-1, length, self.heads, d_head).transpose(1, 2)
            for matrix in self.matrices[:3].unbind(0)
        )
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        # The prompt, or a whole sequence, comes in one piece and must not see its future; a single
        # step sees all before it.
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=length > 1)
        return mixed.transpose(1, 2).reshape(-1, length, width) @ self.matrices[3].T


class Block(nn.Module):
    """Attention, then MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden = config.mlp_ratio * config.d_model
        self.attention_norm = Norm(config.d_model)
        self.attention = Attention(config)
        self.mlp_norm = Norm(config.d_model)
        self.up = nn.Linear(config.d_model, hidden)
        self.down = nn.Linear(hidden, config.d_model)

    def forward(self, x: Tensor, layer: int, cache: Cache | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), layer, cache)
        return x + self.down(torch.relu(self.up(self.mlp_norm(x))))


class Transformer(nn.Module):
    """Token ids [B, T] to logits [B, T, vocabulary] of the next token at each position."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.d_model)
        self.positions = nn.Embedding(config.max_length, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocabulary)

    def forward(self, ids: Tensor, cache: Cache | None = None, first_logit: int = 0) -> Tensor:
        """Logits from position `first_logit` on; with a cache, `ids` continue what it holds."""
        start = 0 if cache is None else cache.length
        length = int(ids.shape[1])
        x = self.tokens(ids) + self.positions.weight[start : start + length]
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache)
        if cache is not None:
            cache.length += length
        return self.head(self.norm(x[:, first_logit:]))

    def initialise(self, generator: torch.Generator) -> "Transformer":
        """Fill every parameter from `generator`: matrices N(0, 1/fan_in), embeddings N(0, 0.02²),
        biases zero, gains one; output matrices are scaled by 1/√(2·layers) (GPT-2)."""
        residual = 1 / math.sqrt(2 * self.config.layers)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("gain"):
                    parameter.fill_(1.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    embedding = name.startswith(("tokens", "positions"))
                    scale = 0.02 if embedding else 1 / math.sqrt(parameter.shape[-1])
                    parameter.normal_(0.0, scale, generator=generator)
                    if name.endswith("down.weight"):
                        parameter.mul_(residual)
                    if name.endswith("attention.matrices"):
                        parameter[3].mul_(residual)
        return self

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
