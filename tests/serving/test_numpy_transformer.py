"""The numpy forward pass is the PyTorch model's."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from arithmetic import formats
from serving.numpy_transformer import forward, read_weights, softmax
from tests.random_models import random_model


@pytest.mark.parametrize("attention", ["dot_product", "positional"])
@pytest.mark.parametrize("layers", [1, 3])
def test_probabilities_and_attention_are_pytorchs(tmp_path, monkeypatch, attention, layers):
    model = random_model("+-*/", 2, attention, layers=layers)
    save_file(model.state_dict(), tmp_path / "weights", metadata={"format": "pt"})
    weights = read_weights(tmp_path / "weights")
    softmaxes = []
    torch_softmax = torch.softmax

    def keep(scores, dim):
        softmaxes.append(torch_softmax(scores, dim))
        return softmaxes[-1]

    monkeypatch.setattr(torch, "softmax", keep)
    for index, fmt in enumerate(formats.get_formats("+-*/")):
        numbers = np.array([7, 98])
        sequences = formats.encode_sequences(fmt.operations[0], numbers, numbers[::-1], 2)
        for ids in sequences[:, :-1].astype(np.int64):
            softmaxes.clear()
            with torch.no_grad():
                expected = torch_softmax(model(torch.from_numpy(ids)[None], index)[0], -1)
            expected_attention = torch.stack([x.reshape(x.shape[-3:]) for x in softmaxes])
            logits, attention_weights = forward(weights, model.config, index, ids)
            assert attention_weights.shape == (layers, 4, len(ids), len(ids))
            assert np.abs(softmax(logits) - expected.numpy()).max() < 1e-4
            assert np.abs(attention_weights - expected_attention.numpy()).max() < 1e-4
