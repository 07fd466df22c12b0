"""LitServe with batching: one API server, one worker.

python litserve_server.py PORT BUNDLE
"""

import sys
from pathlib import Path

import litserve

from arithmetic.engine import Engine
from arithmetic.grammar import Equation

LARGEST_BATCH = 64
WINDOW_SECONDS = 0.001


class ArithmeticAPI(litserve.LitAPI):
    """`{"equation": "1+1="}` to `{"answer": "2"}`."""

    def __init__(self, bundle: str):
        super().__init__(max_batch_size=LARGEST_BATCH, batch_timeout=WINDOW_SECONDS)
        self.bundle = bundle

    def setup(self, device: str) -> None:
        """Load the graphs in the worker."""
        self.engine = Engine(Path(self.bundle))

    def decode_request(self, request: dict[str, str]) -> Equation:
        """One request to one equation."""
        return self.engine.grammar.parse(request["equation"])

    def batch(self, inputs: list[Equation]) -> list[Equation]:
        """The default would stack arrays."""
        return inputs

    def predict(self, x: list[Equation]) -> list[str]:
        """A batch in one call of the graph for each operation."""
        return [answer.text for answer in self.engine.answer(x)]

    def unbatch(self, output: list[str]) -> list[str]:
        """One answer for each request."""
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        """One answer to JSON."""
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
