"""Serve by MLServer with adaptive batching, in the server's own process.

mlserver start FOLDER        with a model-settings.json that names this class
"""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from arithmetic.inference import OnnxModel


class Arithmetic(MLModel):
    """Map a BYTES tensor of equations to one of answers."""

    async def load(self) -> bool:
        """Load the graphs from the directory in the model's settings."""
        self.model = OnnxModel(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer what the batcher has joined in one call of the graph."""
        texts = StringCodec.decode_input(payload.inputs[0])
        parsed = [self.model.grammar.parse(text) for text in texts]
        answers = [answer.text for answer in self.model.answer(parsed)]
        output = StringCodec.encode_output("answer", answers, use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])
