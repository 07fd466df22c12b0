"""Start what the serving benchmarks need: servers on a core of their own, and a registry.

The registry is a real MLflow server with versions of one model: 1 (Production) is the model as it
is, 2 answers the same by another digest, 3 raises on one equation.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import mlflow
import numpy as np
import onnx
from mlflow import MlflowClient

import arithmetic
from arithmetic import artifacts, formats
from arithmetic.errors import UserError
from arithmetic.grammar import Equation
from arithmetic.inference import PROMPTS
from benchmarks.results_file import ROOT
from benchmarks.serving_load import cores
from benchmarks.workspace import environment
from registry import DIGEST_TAG, MODEL_NAME, PRODUCTION
from registry.client import registry_errors
from scripts.quickstart import free_port, wait_for

START_SECONDS, STOP_SECONDS = 300.0, 60.0  # on a busy machine
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


class Process:
    """Run a server as a process group of its own; `start` again uses the same port.

    Args:
        ready: the address that answers 200 when it serves.
        log: a file for its output.
    """

    def __init__(
        self, command: list[str], ready: str, log: Path, core: int | str, **variables: str
    ):
        self.command = ["taskset", "-c", str(core), *command]
        self.ready, self.log, self.variables = ready, log, variables

    def start(self) -> float:
        """Start it and wait until it is ready; return the seconds. Raise UserError."""
        started = time.perf_counter()
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment(OMP_NUM_THREADS="1", **self.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for(self.ready, "", self.popen, START_SECONDS)
        except UserError as error:
            self.stop()
            raise UserError(f"{error}: {self.log.read_text(errors='replace')[-1200:]}") from None
        return time.perf_counter() - started

    def kill(self) -> None:
        """Kill the process group and wait for its end."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> int:
        """Send SIGTERM to the process group; return the exit status, -9 if it had to be killed."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGTERM)
            try:
                return self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode

    def memory_mb(self) -> float:
        """Return the resident memory of the main process."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return round(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024 / 1e6, 1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class ServiceProcess(Process):
    """Run the service on a free port; its log and its models lie in `folder`."""

    def __init__(self, uri: str, folder: Path, core: int | str, **settings: str):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        settings |= {"PORT": str(self.port), "MLFLOW_TRACKING_URI": uri}
        settings["MODEL_CACHE"] = f"{folder}/models-{self.port}"
        command, log = [sys.executable, "-m", "serving"], folder / f"log-{self.port}"
        super().__init__(command, f"{self.address}/readyz", log, core, **settings)


@contextmanager
def registry(model: Path) -> Iterator[tuple[Process, str]]:
    """Run MLflow on the core for load, with the three versions; yield its process and address.

    Raises:
        InvalidModelError: `model` is not a model directory.
    """
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
        folder, port = Path(scratch), free_port()
        uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        log, without_jobs = folder / "log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with Process(command, f"{uri}/health", log, cores()[1], **without_jobs) as process:
            mlflow.set_tracking_uri(uri)
            for version in ("1", "2", "3"):
                directory = Path(shutil.copytree(model, folder / version / "model"))
                if version == "2":
                    with (directory / artifacts.INPUT_PROFILE).open("a") as file:
                        file.write("\n")  # another digest, the same answers
                if version == "3":
                    let_raise(directory)
                register(directory)
            MlflowClient().set_registered_model_alias(MODEL_NAME, PRODUCTION, "1")
            yield process, uri


@registry_errors()
def register(directory: Path) -> None:
    """Register a model directory as `registry.record` does, without a pipeline's run."""
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(ROOT / "registry" / "pyfunc_model.py"),
            artifacts={"model": str(directory)},
            code_paths=[str(Path(arithmetic.__file__).parent)],
            pip_requirements=["mlflow", "numpy", "onnxruntime", "pandas", "pydantic"],
            registered_model_name=MODEL_NAME,
        )
    digest, version = artifacts.digest(directory), logged.registered_model_version
    MlflowClient().set_model_version_tag(MODEL_NAME, str(version), DIGEST_TAG, digest)


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
