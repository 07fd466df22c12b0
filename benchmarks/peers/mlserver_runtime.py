"""MLServer with adaptive batching, by a runtime of its own kind, in the server's own process.

mlserver start FOLDER       with a model-settings.json that names this class
"""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from arithmetic.engine import Engine


class Arithmetic(MLModel):
    """A BYTES tensor of equations to one of answers."""

    async def load(self) -> bool:
        """Load the graphs; the folder stands in the model's settings."""
        self.engine = Engine(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """What the batcher has joined, in one call of the graph for each operation."""
        texts = StringCodec.decode_input(payload.inputs[0])
        parsed = [self.engine.grammar.parse(text) for text in texts]
        answers = [answer.text for answer in self.engine.answer(parsed)]
        output = StringCodec.encode_output("answer", answers, use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])
