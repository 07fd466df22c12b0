"""Prompts to completions: batched greedy decoding with a key-value cache.

`GreedyDecoder` is also what the export stage traces into the serving graph, so that the graph and
the evaluation decode by the same lines.
"""

import torch
from torch import Tensor, nn

from arithmetic.model import Cache, Transformer


class GreedyDecoder(nn.Module):
    """Prompt ids [B, P] to generated ids [B, `tokens`], always the most probable token.

    The number of tokens is fixed: whether an answer ended is read from the END inside it.
    """

    def __init__(self, model: Transformer, tokens: int):
        super().__init__()
        self.model = model
        self.tokens = tokens

    @torch.no_grad()
    def forward(self, prompts: Tensor) -> Tensor:
        cache = Cache()
        logits = self.model(prompts, cache, first_logit=prompts.shape[1] - 1)
        token = logits.argmax(-1)
        generated = [token]
        for _ in range(self.tokens - 1):
            token = self.model(token, cache).argmax(-1)
            generated.append(token)
        return torch.cat(generated, dim=1)
