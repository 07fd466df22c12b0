"""Greedy decoding equals whole passes, and beam search finds what an exhaustive search finds."""

import pytest
import torch

from arithmetic.artifacts import ModelConfig
from arithmetic.decoding import decode_by_beam_search, generate
from arithmetic.model import Transformer
from tests.random_models import random_model

ATTENTIONS = ["dot_product", "positional"]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_greedy_decoding_is_the_argmax_of_whole_passes_and_a_beam_of_width_one(attention):
    model = random_model("*", 2, attention)
    ids = prompts = torch.randint(0, 10, (16, 6), generator=torch.Generator().manual_seed(3))
    for _ in range(9):
        ids = torch.cat([ids, model(ids, 0)[:, -1:].argmax(-1)], dim=1)
    greedy = generate(model, 0, prompts, 9)
    assert torch.equal(greedy, ids[:, 6:])
    assert torch.equal(decode_by_beam_search(model, 0, prompts, 9, 1), greedy)
    assert not torch.equal(decode_by_beam_search(model, 0, prompts, 9, 4), greedy)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_beam_as_wide_as_all_sequences_finds_the_most_probable(attention):
    shape = {"d_model": 8, "layers": 1, "heads": 2, "mlp_ratio": 2, "attention": attention}
    config = ModelConfig.model_validate({"vocabulary_size": 3, "sequence_lengths": [4], **shape})
    generator = torch.Generator().manual_seed(1)
    model = Transformer(config).initialize(generator).eval()
    torch.nn.init.normal_(model.head, std=3, generator=generator)
    torch.nn.init.normal_(model.tokens, generator=generator)
    endings = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # [9, 2]
    for prompt in torch.tensor([[0, 1], [2, 2], [1, 0], [1, 1]]):
        ids = torch.cat([prompt.expand(9, 2), endings[:, :1]], 1)
        log_probabilities = torch.log_softmax(model(ids, 0, first=1), -1)
        scores = log_probabilities.gather(-1, endings[:, :, None]).sum((1, 2))
        generated = decode_by_beam_search(model, 0, prompt[None], 2, width=3)
        assert generated[0].tolist() == endings[scores.argmax()].tolist()
