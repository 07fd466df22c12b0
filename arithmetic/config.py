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
# A first token is one of the vocabulary's (`arithmetic.tokenizer`), so a beam is no wider.
WIDEST_BEAM = 8
ATTENTIONS = ("content", "position")
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
        BrokenBundle: it is missing, no JSON, of another format, names an unknown operation, or no
            model has its shape.
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
            f"{path} is not a bundle's config; run `dvc repro` to make it anew"
        ) from error
    grammar = config.grammar
    known = [operation for operation in OPERATIONS if operation in grammar.operations]
    if len(known) != len(grammar.operations) or not known or grammar.max_operand < 1:
        raise BrokenBundle(
            f"{path} describes no grammar that this program knows (operations "
            f"{list(grammar.operations)}, max_operand {grammar.max_operand}); run `dvc repro`"
        )
    if not _is_possible(config.model, len(known)):
        raise BrokenBundle(f"{path} describes no possible model ({config.model}); run `dvc repro`")
    return config


def _is_possible(model: ModelConfig, operations: int) -> bool:
    sizes = (model.vocabulary, model.d_model, model.layers, model.heads, model.mlp_ratio)
    return (
        min(*sizes, *model.lengths, 1) > 0
        and len(model.lengths) == operations
        and model.d_model % model.heads == 0
        and model.attention in ATTENTIONS
    )
