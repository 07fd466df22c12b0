"""Prompts to completions: batched greedy decoding and beam search with a key-value cache.

These are also what the export stage traces into the serving graphs, so that a graph and the
evaluation decode by the same lines.
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


class BeamDecoder(nn.Module):
    """Prompt ids [B, P] of one operation to generated ids [B, `tokens`]: the most probable sequence
    that a beam search finds (Graves 2012). Among equals the first found wins.

    The width is the length of the second argument, whose values mean nothing: so one exported graph
    serves every width. A width of 1 is greedy decoding.
    """

    def __init__(self, model: Transformer, operation: int, tokens: int):
        super().__init__()
        self.model = model
        self.operation = operation
        self.tokens = tokens

    @torch.no_grad()
    def forward(self, prompts: Tensor, beams: Tensor) -> Tensor:
        """[B, P] int64 and [W] of any type, W at most the vocabulary, to [B, `tokens`] int64."""
        width, vocabulary = beams.shape[0], self.model.config.vocabulary
        cache = Cache()
        last = prompts.shape[1] - 1
        logits = self.model(prompts, self.operation, cache, first_logit=last)[:, -1]
        scores, token = torch.log_softmax(logits, -1).topk(width)  # [B, W] each
        # Rows of one prompt lie together: prompt b has rows b * W to b * W + W - 1.
        first_rows = torch.arange(prompts.shape[0])[:, None] * width
        cache.take((torch.arange(prompts.shape[0])[:, None] + torch.zeros_like(token)).reshape(-1))
        written = token[:, :, None]
        for _ in range(self.tokens - 1):
            logits = self.model(token.reshape(-1, 1), self.operation, cache)[:, -1]
            longer = scores.reshape(-1, 1) + torch.log_softmax(logits, -1)
            scores, place = longer.reshape(-1, width * vocabulary).topk(width)
            token = place % vocabulary
            rows = (first_rows + place // vocabulary).reshape(-1)
            cache.take(rows)
            earlier = written.reshape(-1, written.shape[2]).index_select(0, rows)
            written = torch.cat([earlier, token.reshape(-1, 1)], 1)
            written = written.reshape(-1, width, written.shape[1])
        return written[:, 0]
