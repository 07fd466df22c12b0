"""Decode prompts in PyTorch: greedily, by sampling or by beam search, with the key-value cache.

The number of generated tokens is fixed; whether an answer ended is read from the END inside it.
"""

import torch
from torch import Tensor

from arithmetic.model import KVCache, Transformer


@torch.no_grad()
def decode_greedily(model: Transformer, fmt: int, prompts: Tensor, tokens: int) -> Tensor:
    """Return the most probable next tokens, one after the other: ids [B, P] to [B, `tokens`]."""
    cache = KVCache()
    token = model(prompts, fmt, cache, first=prompts.shape[1] - 1).argmax(-1)
    generated = [token]
    for _ in range(tokens - 1):
        token = model(token, fmt, cache).argmax(-1)
        generated.append(token)
    return torch.cat(generated, dim=1)


@torch.no_grad()
def decode_by_sampling(model: Transformer, fmt: int, prompts: Tensor, uniforms: Tensor) -> Tensor:
    """Sample each next token at temperature 1: ids [B, P] to [B, T].

    Args:
        uniforms: [B, T] in [0, 1). A token is the inverse of the cumulative distribution there, so
            no random generator of torch is involved.
    """
    cache = KVCache()
    logits = model(prompts, fmt, cache, first=prompts.shape[1] - 1)
    generated: list[Tensor] = []
    for column in uniforms.split(1, dim=1):
        if generated:
            logits = model(generated[-1], fmt, cache)
        cumulative = torch.softmax(logits[:, -1], -1).cumsum(-1)
        token = (cumulative <= column).sum(-1, keepdim=True)
        generated.append(token.clamp(max=model.config.vocabulary_size - 1))  # a sum below 1
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
