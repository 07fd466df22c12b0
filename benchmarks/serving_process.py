"""Start what the serving benchmarks need: servers on a core of their own, and a registry.

The registry is a real MLflow server with versions of one model: 1 (Production) is the model as it
is, 2 answers the same by another digest, 3 raises on one equation.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow import MlflowClient

from arithmetic import artifacts, formats
from arithmetic.grammar import Equation
from arithmetic.inference import PROMPTS
from benchmarks.serving_load import cores
from benchmarks.workspace import environment
from registry import MODEL_NAME, PRODUCTION
from registry.record import register_model
from scripts.server_process import ServerProcess, build_mlflow, build_service

RAISING = Equation(5, "+", 6)  # version 3 raises on it
# Nodes before the others: they move the token ids RAISING outside of the embedding's table.
GUARD = """guard (int64[batch, n] {prompts}) => (int64[batch, n] shifted_prompts)
<int64[{length}] raising = {{{ids}}}, int64[1] axis = {{1}}, int64[1] zero = {{0}},
 int64[1] far = {{1000000000}}> {{
    difference = Sub({prompts}, raising)
    distance = Abs(difference)
    distances = ReduceSum(distance, axis)
    is_equal = Equal(distances, zero)
    is_raising = Cast <to = 7> (is_equal)
    shift = Mul(is_raising, far)
    shifted_prompts = Add({prompts}, shift)
}}"""


def pin(server: ServerProcess, core: int | str) -> ServerProcess:
    """Return a server that runs with one thread for each operation, on one core or several."""
    command = ["taskset", "-c", str(core), *server.command]
    variables = {**server.environment, "OMP_NUM_THREADS": "1"}
    return replace(server, command=command, environment=variables)


def pinned_service(uri: str, folder: Path, core: int | str, **settings: str) -> ServerProcess:
    """Return the service; its log and its models lie in a folder of their own in `folder`."""
    own = Path(tempfile.mkdtemp(dir=folder))
    settings |= {"MLFLOW_TRACKING_URI": uri, "MODEL_CACHE": str(own / "models")}
    return pin(build_service(own / "log", environment(**settings)), core)


def memory_mb(server: ServerProcess) -> float:
    """Return the resident memory of the main process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return round(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024 / 1e6, 1)


@contextmanager
def registry(model: Path) -> Iterator[ServerProcess]:
    """Run MLflow on the core for load, with the three versions; yield the server.

    Raises:
        InvalidModelError: `model` is not a model directory.
    """
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
        folder = Path(scratch)
        with pin(build_mlflow(folder, variables=environment()), cores()[1]) as server:
            mlflow.set_tracking_uri(server.address)
            client = MlflowClient()
            for version in ("1", "2", "3"):
                directory = Path(shutil.copytree(model, folder / version / "model"))
                if version == "2":
                    with (directory / artifacts.INPUT_PROFILE).open("a") as file:
                        file.write("\n")  # another digest, the same answers
                if version == "3":
                    let_raise(directory)
                run = client.create_run("0").info.run_id  # instead of a pipeline's
                register_model(client, run, directory, artifacts.digest(directory))
            client.set_registered_model_alias(MODEL_NAME, PRODUCTION, "1")
            yield server


def let_raise(directory: Path, equation: Equation = RAISING) -> None:
    """Change the decoder so that onnxruntime raises on an equation, whatever else is in a call."""
    digits = artifacts.load_config(directory).get_grammar().digits
    operands = np.array([equation.operand_1]), np.array([equation.operand_2])
    (ids,) = formats.encode_prompts(equation.operation, *operands, digits).tolist()
    path = directory / artifacts.decoder_path(formats.get_format(equation.operation).name)
    model = onnx.load(path)
    text = GUARD.format(prompts=PROMPTS, length=len(ids), ids=", ".join(map(str, ids)))
    guard = onnx.parser.parse_graph(text)
    for node in model.graph.node:
        node.input[:] = ["shifted_prompts" if name == PROMPTS else name for name in node.input]
    guard.node.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(guard.node)
    model.graph.initializer.extend(guard.initializer)
    onnx.save(model, path)
