"""Serve by MLServer with adaptive batching, in the server's own process.

MLSERVER_MODEL_IMPLEMENTATION=mlserver_runtime.Arithmetic MLSERVER_MODEL_URI=MODEL mlserver start .
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
        answers = self.model.answer([self.model.grammar.parse(text) for text in texts])
        output = StringCodec.encode_output("answer", [a.text for a in answers], use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])
