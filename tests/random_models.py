"""Write model directories with random weights: real decoders, wrong answers, no training."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from arithmetic import artifacts
from arithmetic.artifacts import ArtifactConfig, GrammarConfig, ModelConfig
from arithmetic.formats import get_formats
from arithmetic.grammar import Grammar
from arithmetic.input_profile import profile, write_profile
from arithmetic.model import Transformer
from arithmetic.tokenizer import VOCABULARY_SIZE
from stages.export import DecoderBuilder

OPSET = 23


def random_model(
    operations: str, digits: int, attention: str, layers: int = 2, heads: int = 4
) -> Transformer:
    """Return a model whose logits differ at every position: the head is not zero."""
    lengths = [fmt.lengths(digits) for fmt in get_formats(operations)]
    shape: dict[str, Any] = {"d_model": 16, "layers": layers, "heads": heads}
    config = ModelConfig(
        vocabulary_size=VOCABULARY_SIZE,
        sequence_lengths=[part.prompt + part.generated - 1 for part in lengths],
        mlp_ratio=2,
        attention=attention,  # type: ignore[arg-type]
        **shape,
    )
    generator = torch.Generator().manual_seed(1)
    model = Transformer(config).initialize(generator).eval()
    with torch.no_grad():
        model.head.normal_(generator=generator)
        model.tokens.normal_(std=2, generator=generator)
        for parameter in (*model.positions, *model.blocks.parameters()):
            parameter.normal_(std=0.5, generator=generator)
    return model


def write_model(
    directory: Path, operations: str = "+-", max_operand: int = 99, attention: str = "dot_product"
) -> Path:
    """Write the model directory of a random model and return its path."""
    grammar = Grammar(tuple(operations), max_operand)
    model = random_model(operations, grammar.digits, attention)
    (directory / artifacts.DECODERS).mkdir(parents=True)
    grammar_config = GrammarConfig(operations=list(operations), max_operand=max_operand)
    config = ArtifactConfig(grammar=grammar_config, model=model.config)
    artifacts.write_config(directory / artifacts.CONFIG, config)
    save_file(model.state_dict(), directory / artifacts.WEIGHTS)
    write_profile(directory, profile({}, grammar))
    with torch.no_grad():
        for index, fmt in enumerate(get_formats(operations)):
            graph = DecoderBuilder(model, index).build(fmt.lengths(grammar.digits), OPSET)
            path = directory / artifacts.decoder_path(fmt.name)
            path.write_bytes(graph.SerializeToString(deterministic=True))
    return directory
