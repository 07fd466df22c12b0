"""Weights on disk to a model in torch."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from arithmetic.bundle import WEIGHTS
from arithmetic.config import load_config
from arithmetic.errors import BrokenBundle
from arithmetic.model import Transformer


def load_model(bundle: Path) -> Transformer:
    """The model of a bundle's config and weights, ready to answer.

    Raises:
        BrokenBundle: a file is missing or damaged, or the weights do not fit the config.
    """
    config = load_config(bundle)
    path = bundle / WEIGHTS
    model = Transformer(config.model)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BrokenBundle(f"{path} does not load ({reason}); run `dvc repro`") from error
    return model.eval()
