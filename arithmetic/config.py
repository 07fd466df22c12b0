"""What `config.json` of a bundle holds: the rules under which a model was trained, and its shape.

Serving judges a request by the grammar that travels with the model, never by params.yaml. No torch
here: every room reads this.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from arithmetic.errors import BrokenBundle
from arithmetic.grammar import OPERATIONS, Grammar

NAME = "config.json"
# A first token is one of the vocabulary's 17, so a beam cannot be much wider.
WIDEST_BEAM = 8
FORMAT = 2  # 1 had no graphs of beam search


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to rebuild the model; stored as JSON beside the weights.

    Attributes:
        vocabulary: number of token ids.
        lengths: tokens read of a sequence, per operation, in the grammar's order.
        d_model: width of the residual stream; a multiple of `heads`.
        layers, heads: as usual.
        mlp_ratio: hidden width of the MLP over `d_model`.
        attention: `content` (queries meet keys) or `position` (a learned table).
    """

    vocabulary: int
    lengths: tuple[int, ...]
    d_model: int
    layers: int
    heads: int
    mlp_ratio: int
    attention: str


@dataclass(frozen=True)
class BundleConfig:
    """The grammar of the questions and the shape of the model that answers them."""

    grammar: Grammar
    model: ModelConfig


def write_config(path: Path, config: BundleConfig) -> None:
    """Write `path`, the same bytes for the same config."""
    content = {"format": FORMAT, "grammar": asdict(config.grammar), "model": asdict(config.model)}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_config(folder: Path) -> BundleConfig:
    """Read `config.json` of a bundle.

    Raises:
        BrokenBundle: it is missing, no JSON, of another format, or names an unknown operation.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BrokenBundle(
                f"{path} has format {content['format']}, this program reads format {FORMAT}; "
                "train again or use the program of that version"
            )
        operations, max_operand = (
            content["grammar"]["operations"],
            content["grammar"]["max_operand"],
        )
        model = content["model"]
        lengths, attention = tuple(map(int, model.pop("lengths"))), str(model.pop("attention"))
        config = BundleConfig(
            Grammar(tuple(operations), int(max_operand)),
            ModelConfig(
                lengths=lengths,
                attention=attention,
                **{str(key): int(value) for key, value in model.items()},
            ),
        )
    except OSError as error:
        raise BrokenBundle(f"{path} cannot be read ({error.strerror}); run `dvc repro`") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenBundle(
            f"{path} is not a bundle's config ({error!r}); run `dvc repro` to make it anew"
        ) from error
    unknown = [operation for operation in config.grammar.operations if operation not in OPERATIONS]
    if unknown or not config.grammar.operations or config.grammar.max_operand < 1:
        raise BrokenBundle(f"{path} describes no grammar this program knows (operations {unknown})")
    return config
