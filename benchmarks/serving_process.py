"""Start what the serving benchmarks need: servers on a core of their own, and a registry.

The registry is a real MLflow server with versions of one model: 1 (Production) is the model as it
is, 2 answers the same by another digest, 3 raises on one equation.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import arithmetic
from arithmetic import artifacts, formats
from arithmetic.errors import UserError
from arithmetic.grammar import Equation
from arithmetic.inference import PROMPTS
from benchmarks.results_file import ROOT
from benchmarks.workspace import environment
from registry import DIGEST_TAG, MODEL_NAME, PRODUCTION
from registry.client import registry_errors

START_SECONDS = 300.0  # on a busy machine
STOP_SECONDS = 15.0
RAISING = Equation(5, "+", 6)  # version 3 raises on it
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def fetch(url: str, body: object | None = None, timeout: float = 10.0) -> bytes:
    """Return the body of a GET, or of a POST with JSON; raise OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with _opener.open(request, timeout=timeout) as response:
        content: bytes = response.read()
    return content


@dataclass
class Process:
    """Run a server as a process group of its own, always on the same port.

    Attributes:
        command: the program with its arguments.
        is_ready: returns whether it serves; may raise OSError.
        log: its output.
        core: it runs on this one; None for any.
        variables: of its environment.
    """

    command: list[str]
    is_ready: Callable[[], bool]
    log: Path
    core: int | None = None
    variables: dict[str, str] = field(default_factory=dict)
    popen: "subprocess.Popen[bytes] | None" = None

    def start(self) -> float:
        """Start it and wait until it is ready; return the seconds. Raise UserError."""
        pinned = [] if self.core is None else ["taskset", "-c", str(self.core)]
        started = time.perf_counter()
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                [*pinned, *self.command],
                cwd=ROOT,
                env=environment(**self.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while time.perf_counter() - started < START_SECONDS and self.popen.poll() is None:
            try:
                if self.is_ready():
                    return time.perf_counter() - started
            except OSError:
                pass  # not listening yet; the time limit decides
            time.sleep(0.02)
        self.stop()
        tail = " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-8:])
        raise UserError(f"{' '.join(self.command)[:100]} did not start: {tail[-1200:]}")

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self.popen is not None
        return self.popen.pid

    def kill(self) -> None:
        """Kill the process group."""
        assert self.popen is not None
        if self.popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> int:
        """Send SIGTERM to the process group; return the exit status, -9 if it had to be killed."""
        assert self.popen is not None
        if self.popen.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
            try:
                return self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode

    def memory_mb(self) -> float:
        """Return the resident memory of the process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
        raise UserError(f"/proc/{self.pid}/status has no VmRSS")


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Start a process, and end it with the block."""
    process.start()
    try:
        yield process
    finally:
        process.stop()


def service(
    tracking_uri: str, folder: Path, core: int, python: str = sys.executable, **settings: str
) -> tuple[Process, str]:
    """Return the service as a process that is not started yet, and its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    variables = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MODEL_CACHE": str(folder / "models"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "OMP_NUM_THREADS": "1",
        **settings,
    }

    def is_ready() -> bool:
        return bool(fetch(f"{address}/readyz"))

    command = [python, "-m", "serving"]
    return Process(command, is_ready, folder / "service.log", core, variables), address


def mlflow_server(folder: Path, core: int) -> tuple[Process, str]:
    """Return an MLflow server over a store in `folder`, not started yet, and its address."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "mlartifacts")]

    def is_ready() -> bool:
        return fetch(f"{uri}/health") == b"OK"

    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven more processes
    return Process(command, is_ready, folder / "mlflow.log", core, variables), uri


@registry_errors()
def register_versions(uri: str, model: Path, scratch: Path) -> None:
    """Register the three versions; version 1 is Production.

    Raises:
        InvalidModelError: `model` is not a model directory.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    client.create_registered_model(MODEL_NAME)
    copies = [scratch / f"version-{number}" / "model" for number in (1, 2, 3)]
    for copy in copies:
        shutil.copytree(model, copy)
    with (copies[1] / artifacts.INPUT_PROFILE).open("a") as file:
        file.write("\n")  # another digest, the same answers
    let_raise(copies[2])
    for copy in copies:
        register(uri, copy)
    client.set_registered_model_alias(MODEL_NAME, PRODUCTION, "1")


def register(uri: str, directory: Path) -> None:
    """Register one model directory as `registry.record` does, without a pipeline's run."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    mlflow.set_tracking_uri(uri)
    warnings.filterwarnings("ignore", ".*nput example was not provided")
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(ROOT / "registry" / "pyfunc_model.py"),
            artifacts={"model": str(directory)},
            code_paths=[str(Path(arithmetic.__file__).parent)],
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "equation")]),
                outputs=Schema([ColSpec("string", "answer")]),
            ),
            pip_requirements=["mlflow", "numpy", "onnxruntime", "pandas", "pydantic"],
        )
    tags = {DIGEST_TAG: artifacts.digest(directory)}
    source = f"models:/{info.model_id}"
    mlflow.MlflowClient(uri).create_model_version(
        MODEL_NAME, source, run_id=info.run_id, tags=tags, model_id=info.model_id
    )


def let_raise(directory: Path) -> None:
    """Change the decoder of + so that onnxruntime raises on RAISING, whatever else is in a call.

    The token ids of that prompt are moved outside of the embedding's table.
    """
    digits = artifacts.load_config(directory).get_grammar().digits
    operands = np.array([RAISING.operand_1]), np.array([RAISING.operand_2])
    prompt = formats.encode_prompts(RAISING.operation, *operands, digits).astype(np.int64)
    path = directory / artifacts.decoder_path(formats.get_format(RAISING.operation).name)
    model = onnx.load(path)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == PROMPTS:
                node.input[place] = "shifted_prompts"
    nodes = [
        helper.make_node("Sub", [PROMPTS, "raising_prompt"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("ReduceSum", ["distance", "raising_axis"], ["distances"]),
        helper.make_node("Equal", ["distances", "raising_distance"], ["is_equal"]),
        helper.make_node("Cast", ["is_equal"], ["is_raising"], to=TensorProto.INT64),
        helper.make_node("Mul", ["is_raising", "raising_shift"], ["shift"]),
        helper.make_node("Add", [PROMPTS, "shift"], ["shifted_prompts"]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants = {
        "raising_prompt": prompt,
        "raising_axis": np.array([1]),
        "raising_distance": np.array(0),
        "raising_shift": np.array(10**9),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.save(model, path)


@contextmanager
def registry(model: Path, core: int) -> Iterator[tuple[Process, str]]:
    """Run an MLflow server with the three versions; yield its process and its address."""
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
        process, uri = mlflow_server(Path(scratch), core)
        with running(process):
            register_versions(uri, model, Path(scratch) / "versions")
            yield process, uri
