"""Prompts to completions: batched greedy decoding with a key-value cache.

`GreedyDecoder` is also what the export stage traces into the serving graph, so that the graph and
the evaluation decode by the same lines.
"""

import torch
from torch import Tensor, nn

from arithmetic.model import Cache, Transformer


class GreedyDecoder(nn.Module):
    """Prompt ids [B, P] of one operation to generated ids [B, `tokens`], the most probable ones.

    The number of tokens is fixed: whether an answer ended is read from the END inside it.
    """

    def __init__(self, model: Transformer, operation: int, tokens: int):
        super().__init__()
        self.model = model
        self.operation = operation
        self.tokens = tokens

    @torch.no_grad()
    def forward(self, prompts: Tensor) -> Tensor:
        cache = Cache()
        last = prompts.shape[1] - 1
        token = self.model(prompts, self.operation, cache, first_logit=last).argmax(-1)
        generated = [token]
        for _ in range(self.tokens - 1):
            token = self.model(token, self.operation, cache).argmax(-1)
            generated.append(token)
        return torch.cat(generated, dim=1)
