"""The model: a decoder-only Transformer, small enough to read in one sitting.

Pre-norm blocks of causal attention and a ReLU MLP, RMSNorm, learned absolute positions, an untied
head, float32, no dropout (Vaswani et al. 2017; RMSNorm: Zhang and Sennrich 2019). Two layers are
needed and enough (`make frontier`).

Each operation has a position table of its own, so a batch holds sequences of one operation. Beyond
that the model knows tokens and positions, nothing of equations.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arithmetic.config import ModelConfig

# Makes one step of the optimiser move a table's logits as far as it moves other activations.
TABLE_SCALE = 5.0


@dataclass
class Cache:
    """What each layer keeps of the tokens already read, and how many those are."""

    length: int = 0
    kept: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    batch_dims: dict[tuple[int, str], int] = field(default_factory=dict)

    def extend(self, layer: int, name: str, new: Tensor, dim: int, batch_dim: int) -> Tensor:
        """Append `new` along `dim` to what a layer keeps under a name; returns all of it."""
        before = self.kept.get((layer, name))
        every = new if before is None else torch.cat([before, new], dim=dim)
        self.kept[layer, name] = every
        self.batch_dims[layer, name] = batch_dim
        return every

    def take(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order, repeats allowed: [N] int64."""
        for key, batch_dim in self.batch_dims.items():
            self.kept[key] = self.kept[key].index_select(batch_dim, rows)


def normalised(x: Tensor) -> Tensor:
    """RMSNorm without a gain: scaled to unit root mean square.

    `rsqrt`, not `sqrt`: MKL's `sqrt` differs between CPUs (docs/reproducibility.md).
    """
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def _by_head(x: Tensor, heads: int, d_head: int) -> Tensor:
    """[B, T, d] to [B, heads, T, d_head]; one token needs no transposition."""
    length = int(x.shape[1])
    if length == 1:
        return x.reshape(-1, heads, 1, d_head)
    return x.reshape(-1, length, heads, d_head).transpose(1, 2)


class ContentAttention(nn.Module):
    """Causal self-attention without biases: queries meet keys.

    The four square matrices are one parameter [4, d, d] (query, key, value, output), so that the
    optimiser treats them in one batch.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.matrices = nn.Parameter(torch.empty(4, config.d_model, config.d_model))

    def forward(self, x: Tensor, operation: int, cache: Cache | None, first: int) -> Tensor:
        # Plain integers and a free batch axis: the exported graph then computes no shapes.
        length, width = int(x.shape[1]), self.matrices.shape[1]
        d_head = width // self.heads
        query, key, value = (
            _by_head(x @ matrix.T, self.heads, d_head) for matrix in self.matrices[:3].unbind(0)
        )
        if cache is None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            # The same, spelled out: the fused kernel is for whole sequences, and makes a larger
            # and slower graph once it is exported for decoding token by token.
            key = cache.extend(self.layer, "key", key, dim=2, batch_dim=0)
            value = cache.extend(self.layer, "value", value, dim=2, batch_dim=0)
            scores = query @ key.transpose(2, 3) * (1 / math.sqrt(d_head))
            if length > 1:  # the prompt; a single token sees all before it
                future = torch.ones(length, length, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(future, float("-inf"))
            mixed = torch.softmax(scores, -1) @ value
        if length > 1:
            mixed = mixed.transpose(1, 2)
        mixed = mixed.reshape(-1, length, width)[:, first:]
        return mixed @ self.matrices[3].T


class PositionAttention(nn.Module):
    """Causal attention whose weights depend on the two positions alone: a learned table of logits
    for each head and operation (the Random Synthesizer of Tay et al. 2021).

    In written arithmetic, where a token looks is a matter of the layout and never of the digits, so
    nothing is lost; and one softmax serves the whole batch, which makes a step on long sequences
    cheaper. What is read there still depends on content: values, MLP.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.matrices = nn.Parameter(torch.empty(2, config.d_model, config.d_model))
        self.tables = nn.ParameterList(
            torch.empty(config.heads, length, length) for length in config.lengths
        )

    def weights(self, operation: int) -> Tensor:
        """How much each position reads of each: [heads, T, T], rows sum to one."""
        table = self.tables[operation]
        future = torch.ones(table.shape[1:], dtype=torch.bool).triu(1)
        return torch.softmax((table * TABLE_SCALE).masked_fill(future, float("-inf")), -1)

    def forward(self, x: Tensor, operation: int, cache: Cache | None, first: int) -> Tensor:
        value = x @ self.matrices[0].T
        if cache is None:
            mixed = self._whole(value, operation, first)
        else:
            mixed = self._continued(value, operation, cache, first)
        return mixed @ self.matrices[1].T

    def _whole(self, value: Tensor, operation: int, first: int) -> Tensor:
        """Whole sequences, one product for the batch: [heads, T, S] @ [heads, S, B * d_head]."""
        length, width = int(value.shape[1]), value.shape[2]
        d_head = width // self.heads
        value = value.reshape(-1, length, self.heads, d_head).permute(2, 1, 0, 3)
        weights = self.weights(operation)[:, first:length, :length]
        mixed = weights @ value.reshape(self.heads, length, -1)
        mixed = mixed.reshape(self.heads, length - first, -1, d_head).permute(2, 1, 0, 3)
        return mixed.reshape(-1, length - first, width)

    def _continued(self, value: Tensor, operation: int, cache: Cache, first: int) -> Tensor:
        """The same for the next tokens: each head's weights, repeated over its channels, times the
        values. One token then takes fewer nodes of the exported graph than the product above
        (`make bench-decoders` says what a change of the graphs is worth)."""
        start, length = cache.length, int(value.shape[1])
        value = cache.extend(self.layer, "value", value, dim=1, batch_dim=0)
        if (self.layer, "weights") not in cache.kept:
            # A width of plain integers, so that the exported graph has the result as a constant.
            d_head = self.matrices.shape[1] // self.heads
            by_channel = self.weights(operation).repeat_interleave(d_head, 0)
            cache.kept[self.layer, "weights"] = by_channel.permute(1, 2, 0).contiguous()
        # [T, S, d] of the tokens that are asked for and those that they see.
        seen = start + length
        weights = cache.kept[self.layer, "weights"][start + first : seen, :seen]
        if length - first == 1:
            return (value * weights[0]).sum(1, keepdim=True)
        return (value[:, None] * weights).sum(2)


ATTENTIONS: dict[str, type[ContentAttention] | type[PositionAttention]] = {
    "content": ContentAttention,
    "position": PositionAttention,
}


class Block(nn.Module):
    """Attention, then MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        hidden = config.mlp_ratio * config.d_model
        self.attention = ATTENTIONS[config.attention](config, layer)
        self.up = nn.Linear(config.d_model, hidden)
        self.down = nn.Linear(hidden, config.d_model, bias=False)

    def forward(self, x: Tensor, operation: int, cache: Cache | None, first: int) -> Tensor:
        """[B, T, d] to [B, T - first, d]."""
        x = x[:, first:] + self.attention(normalised(x), operation, cache, first)
        return x + self.down(torch.relu(self.up(normalised(x))))


class Transformer(nn.Module):
    """Token ids [B, T] of one operation to logits [B, T, vocabulary] of each next token."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocabulary, config.d_model))
        self.positions = nn.ParameterList(
            torch.empty(length, config.d_model) for length in config.lengths
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.head = nn.Parameter(torch.empty(config.vocabulary, config.d_model))

    def forward(
        self, ids: Tensor, operation: int, cache: Cache | None = None, first_logit: int = 0
    ) -> Tensor:
        """Logits from position `first_logit` on; with a cache, `ids` continue what it holds.

        Args:
            ids: [B, T] int64.
            operation: index of the operation in the grammar's order.
        """
        start = 0 if cache is None else cache.length
        length = int(ids.shape[1])
        x = F.embedding(ids, self.tokens) + self.positions[operation][start : start + length]
        for block in self.blocks:
            # Only the last block knows which positions are asked for; the others feed it all.
            x = block(x, operation, cache, first_logit if block is self.blocks[-1] else 0)
        if cache is not None:
            cache.length += length
        return normalised(x) @ self.head.T

    def initialise(self, generator: torch.Generator) -> "Transformer":
        """Fill every parameter from `generator`: matrices N(0, 1/fan_in), those that write to the
        residual stream half as wide; embeddings and tables N(0, 0.02²); head and biases zero."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "head" or name.endswith("bias"):
                    parameter.zero_()
                    continue
                looked_up = name.startswith(("tokens", "positions")) or ".tables." in name
                scale = 0.02 if looked_up else 1 / math.sqrt(parameter.shape[-1])
                parameter.normal_(0.0, scale, generator=generator)
                if name.endswith("down.weight"):
                    parameter.mul_(0.5)
                elif name.endswith("matrices"):
                    parameter[-1].mul_(0.5)
        return self

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
