"""Serve by LitServe with batching: one API server, one worker.

python litserve_server.py PORT MODEL
"""

import sys
from pathlib import Path

import litserve

from arithmetic.inference import OnnxModel


class ArithmeticAPI(litserve.LitAPI):
    """Map `{"equation": "1+1="}` to `{"answer": "2"}`, a batch in one call of the graph."""

    def setup(self, device: str) -> None:
        """Load the graphs in the worker."""
        self.model = OnnxModel(Path(sys.argv[2]))

    def predict(self, x: list[dict[str, str]]) -> list[dict[str, str]]:
        """Answer a batch."""
        equations = [self.model.grammar.parse(request["equation"]) for request in x]
        return [{"answer": answer.text} for answer in self.model.answer(equations)]


if __name__ == "__main__":
    api = ArithmeticAPI(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
