"""Serve by LitServe with batching: one API server, one worker.

python litserve_server.py PORT MODEL
"""

import sys
from pathlib import Path

import litserve

from arithmetic.grammar import Equation
from arithmetic.inference import OnnxModel


class ArithmeticAPI(litserve.LitAPI):
    """Map `{"equation": "1+1="}` to `{"answer": "2"}`."""

    def __init__(self, directory: str):
        super().__init__(max_batch_size=64, batch_timeout=0.001)
        self.directory = directory

    def setup(self, device: str) -> None:
        """Load the graphs in the worker."""
        self.model = OnnxModel(Path(self.directory))

    def decode_request(self, request: dict[str, str]) -> Equation:
        """Parse one request."""
        return self.model.grammar.parse(request["equation"])

    def batch(self, inputs: list[Equation]) -> list[Equation]:
        """Keep a list; the default would stack arrays."""
        return inputs

    def predict(self, x: list[Equation]) -> list[str]:
        """Answer a batch in one call of the graph."""
        return [answer.text for answer in self.model.answer(x)]

    def unbatch(self, output: list[str]) -> list[str]:
        """Return one answer for each request."""
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        """Return one answer as JSON."""
        return {"answer": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        ArithmeticAPI(sys.argv[2]), accelerator="cpu", devices=1, workers_per_device=1
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
