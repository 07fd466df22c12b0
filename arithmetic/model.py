"""Define the model: a decoder-only Transformer.

Pre-norm blocks of causal self-attention and a ReLU MLP, RMSNorm, learned absolute positions, an
untied head, float32, no dropout (Vaswani et al. 2017; RMSNorm: Zhang and Sennrich 2019).

Each sequence format has positions of its own, so a batch holds sequences of one format.
The model handles tokens and positions; only the formats handle equations.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from arithmetic.artifacts import REPRODUCE, WEIGHTS, ModelConfig, load_config
from arithmetic.errors import InvalidModelError

# Makes one optimizer step move a table's logits as far as it moves other activations.
TABLE_SCALE = 5.0


class KVCache:
    """Keep each layer's keys and values of the tokens read so far, [B, S, d] each."""

    def __init__(self) -> None:
        self.length = 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if layer in self.layers:
            keys, values = self.layers[layer]
            key, value = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)
        self.layers[layer] = key, value
        return key, value

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order, repeats allowed: [N] int64."""
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = keys[rows], values[rows]


def rms_norm(x: Tensor) -> Tensor:
    """Scale to unit root mean square, without a gain.

    `rsqrt`, not `sqrt`: MKL's `sqrt` differs between CPUs (docs/explanation/reproducibility.md).
    """
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


class PositionBias(nn.Module):
    """Hold a learned score for each head and each pair of positions, a table for each format.

    Ke et al. 2021 ("Rethinking Positional Encoding"), as free entries: what a token depends on is
    fixed by the format, and content alone confuses equal digits at different places.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tables = nn.ParameterList(
            torch.empty(config.heads, length, length) for length in config.sequence_lengths
        )

    def forward(self, fmt: int, first: int, end: int) -> Tensor:
        """Return the scores of the positions first…end - 1 for 0…end - 1: [heads, T, S].

        Later positions have -inf: attention is causal.
        """
        scores = self.tables[fmt][:, first:end, :end] * TABLE_SCALE
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(first + 1)
        return scores.masked_fill(hidden, -torch.inf)


class DotProductAttention(nn.Module):
    """Attend by content and position: causal multi-head self-attention."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.heads
        # Query, key, value and output matrix as one parameter, so that Muon treats them as a batch.
        self.matrices = nn.Parameter(torch.empty(4, config.d_model, config.d_model))
        self.bias = PositionBias(config)

    def forward(self, x: Tensor, fmt: int, cache: KVCache | None, first: int) -> Tensor:
        """Map [B, T, d] to [B, T - first, d]: the outputs from position `first` on."""
        query, key, value = F.linear(x, self.matrices[:3].flatten(0, 1)).chunk(3, dim=-1)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        query, end = query[:, first:], key.shape[1]
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores + self.bias(fmt, end - query.shape[2], end)
        mixed = torch.softmax(scores, -1) @ value
        return F.linear(mixed.transpose(1, 2).flatten(2), self.matrices[3])


class PositionalAttention(nn.Module):
    """Attend by position alone.

    The Random Synthesizer of Tay et al. 2021. One softmax for the whole batch makes long sequences
    cheaper.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.matrices = nn.Parameter(torch.empty(2, config.d_model, config.d_model))
        self.bias = PositionBias(config)

    def forward(self, x: Tensor, fmt: int, cache: KVCache | None, first: int) -> Tensor:
        """Map [B, T, d] to [B, T - first, d]: the outputs from position `first` on."""
        value, length = F.linear(x, self.matrices[0]), x.shape[1] - first
        if cache is not None:
            value, _ = cache.extend(self.layer, value, value)
        end = value.shape[1]
        weights = torch.softmax(self.bias(fmt, end - length, end), -1)
        # One product for the whole batch: [heads, T, S] @ [heads, S, B * d_head].
        by_head = value.unflatten(-1, (self.heads, -1)).permute(2, 1, 0, 3)
        mixed = (weights @ by_head.flatten(2)).unflatten(-1, by_head.shape[2:])
        return F.linear(mixed.permute(2, 1, 0, 3).flatten(2), self.matrices[1])


class Block(nn.Module):
    """Attention, then MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        hidden = config.mlp_ratio * config.d_model
        by_position = config.attention == "positional"
        attention = PositionalAttention if by_position else DotProductAttention
        self.attention = attention(config, layer)
        self.up = nn.Linear(config.d_model, hidden)
        self.down = nn.Linear(hidden, config.d_model, bias=False)

    def forward(self, x: Tensor, fmt: int, cache: KVCache | None, first: int) -> Tensor:
        """Map [B, T, d] to [B, T - first, d]."""
        x = x[:, first:] + self.attention(rms_norm(x), fmt, cache, first)
        return x + self.down(torch.relu(self.up(rms_norm(x))))


class Transformer(nn.Module):
    """Map token ids [B, T] of one format to logits [B, T, vocabulary] of each next token."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocabulary_size, config.d_model))
        self.positions = nn.ParameterList(
            torch.empty(length, config.d_model) for length in config.sequence_lengths
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.head = nn.Parameter(torch.empty(config.vocabulary_size, config.d_model))

    def forward(
        self, ids: Tensor, fmt: int, cache: KVCache | None = None, first: int = 0
    ) -> Tensor:
        """Return the logits from position `first` on; with a cache, `ids` continue its tokens.

        Args:
            ids: [B, T] int64.
            fmt: index of the sequence format among those of the grammar.
        """
        start, length = cache.length if cache else 0, ids.shape[1]
        x = F.embedding(ids, self.tokens) + self.positions[fmt][start : start + length]
        for block in self.blocks:
            # The earlier blocks need all positions, as the last one attends to them.
            x = block(x, fmt, cache, first if block is self.blocks[-1] else 0)
        if cache is not None:
            cache.length += length
        return F.linear(rms_norm(x), self.head)

    def initialize(self, generator: torch.Generator) -> "Transformer":
        """Fill the parameters from `generator` and return the model.

        Matrices N(0, 1/fan_in), those that write to the residual stream half as wide; embeddings
        and tables N(0, 0.02²); head and biases zero.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "head" or name.endswith("bias"):
                    parameter.zero_()
                    continue
                is_table = name.startswith(("tokens", "positions")) or ".tables." in name
                scale = 0.02 if is_table else 1 / math.sqrt(parameter.shape[-1])
                parameter.normal_(0.0, scale, generator=generator)
                if name.endswith("down.weight"):
                    parameter.mul_(0.5)
                elif name.endswith("matrices"):
                    parameter[-1].mul_(0.5)
        return self


def load_model(directory: Path) -> Transformer:
    """Load a model directory in eval mode.

    Raises:
        InvalidModelError: a file is missing or damaged, or the weights do not fit the config.
    """
    path = directory / WEIGHTS
    model = Transformer(load_config(directory).model)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidModelError(f"{path} does not load: {reason}", REPRODUCE) from error
    return model.eval()
