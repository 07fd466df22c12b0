"""Decode prompts in PyTorch: greedily, by sampling or by beam search, with the key-value cache.

The number of generated tokens is fixed; whether an answer ended is read from the END inside it.
"""

import torch
from torch import Tensor

from arithmetic.model import KVCache, Transformer


@torch.no_grad()
def generate(
    model: Transformer, fmt: int, prompts: Tensor, tokens: int, uniforms: Tensor | None = None
) -> Tensor:
    """Return the most probable next tokens, or sampled ones: ids [B, P] to [B, `tokens`].

    Args:
        uniforms: [B, `tokens`] in [0, 1), to sample at temperature 1. A token is the inverse of the
            cumulative distribution there, so no random generator of torch is involved.
    """
    cache, ids, generated = KVCache(), prompts, list[Tensor]()
    for i in range(tokens):
        logits = model(ids, fmt, cache, first=ids.shape[1] - 1)[:, -1]
        if uniforms is None:
            ids = logits.argmax(-1, keepdim=True)
        else:
            cumulative = torch.softmax(logits, -1).cumsum(-1)
            ids = (cumulative <= uniforms[:, i, None]).sum(-1, keepdim=True)
            ids = ids.clamp(max=model.config.vocabulary_size - 1)  # the sum may be below 1
        generated.append(ids)
    return torch.cat(generated, dim=1)


@torch.no_grad()
def decode_by_beam_search(
    model: Transformer, fmt: int, prompts: Tensor, tokens: int, width: int
) -> Tensor:
    """Return the most probable sequences that a beam search finds: ids [B, P] to [B, `tokens`].

    Graves 2012, "Sequence Transduction with Recurrent Neural Networks". The first of equals wins;
    a width of 1 is greedy decoding.
    """
    vocabulary = model.config.vocabulary_size
    cache = KVCache()
    logits = model(prompts, fmt, cache, first=prompts.shape[1] - 1)[:, -1]
    scores, token = torch.log_softmax(logits, -1).topk(width)  # [B, W] each
    # The beams of one prompt are consecutive rows: prompt b has rows b * W to b * W + W - 1.
    first_rows = torch.arange(prompts.shape[0])[:, None] * width
    cache.select(torch.arange(prompts.shape[0]).repeat_interleave(width))
    generated = token[:, :, None]
    for _ in range(tokens - 1):
        logits = model(token.reshape(-1, 1), fmt, cache)[:, -1]
        extended = scores.reshape(-1, 1) + torch.log_softmax(logits, -1)
        scores, place = extended.reshape(-1, width * vocabulary).topk(width)
        token = place % vocabulary
        rows = (first_rows + place // vocabulary).reshape(-1)
        cache.select(rows)
        before = generated.reshape(-1, generated.shape[2]).index_select(0, rows)
        generated = torch.cat([before, token.reshape(-1, 1)], 1)
        generated = generated.reshape(-1, width, generated.shape[1])
    return generated[:, 0]
