"""How each server is installed, started, asked and understood."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arithmetic.errors import Problem
from registry import MODEL

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"
# Ignored by git: environments are made once and kept.
ENVIRONMENTS = ROOT / ".bench"
ENGINE = ("onnxruntime==1.32.0", "numpy==2.4.6", "pydantic==2.14.4")
FOUR = "four-operations/bundle"


@dataclass(frozen=True)
class Server:
    """One competitor.

    Attributes:
        title: as the table calls it.
        command: what starts it, of a port and a scratch folder; the first word is replaced by
            the environment's own program.
        path: where it is asked.
        body: an equation to a JSON body.
        read: a parsed answer to the text of the answer.
        requirements: of its environment; empty: this one.
        operations: of the equations that it is asked.
        environment: variables, of the tracking server's address.
        constant: it answers the same to everything.
        batches: whether requests share a call of the model.
    """

    title: str
    command: Callable[[int, Path], list[str]]
    path: str = "/predict"
    body: Callable[[str], Any] = lambda text: {"equation": text}
    read: Callable[[Any], str] = lambda answer: answer["predicted_answer"]
    requirements: tuple[str, ...] = ()
    operations: str = "+-"
    environment: Callable[[str], Mapping[str, str]] = field(default=lambda _: {})
    constant: bool = False
    batches: bool = True


def _service(version: int) -> dict[str, Any]:
    return {
        "command": lambda port, _: ["python", "-m", "serving"],
        "environment": lambda uri: {
            "MLFLOW_TRACKING_URI": uri,
            "MODEL_URI": f"models:/{MODEL}/{version}",
        },
    }


def _mlserver(port: int, scratch: Path) -> list[str]:
    """MLServer reads its settings from files."""
    (scratch / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": port,
                "grpc_port": port + 1,
                "metrics_endpoint": None,
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (scratch / "model-settings.json").write_text(
        json.dumps(
            {
                "name": MODEL,
                "implementation": "mlserver_runtime.Arithmetic",
                "max_batch_size": 64,
                "max_batch_time": 0.001,
                "parameters": {"uri": str(ROOT / "bundle")},
            }
        )
    )
    return ["mlserver", "start", str(scratch)]


SERVERS: dict[str, Server] = {
    "service": Server("this service, + and −", **_service(1)),
    "constant": Server(
        "FastAPI, constant answer",
        lambda port, _: ["python", "-m", "benchmarks.peers.constant", str(port)],
        constant=True,
        batches=False,
    ),
    "torch": Server(
        "FastAPI, torch eager",
        lambda port, _: ["python", "-m", "benchmarks.peers.torch_eager", str(port), "bundle"],
        batches=False,
    ),
    "mlserver": Server(
        "MLServer",
        _mlserver,
        path=f"/v2/models/{MODEL}/infer",
        body=lambda text: {
            "inputs": [{"name": "equation", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
        },
        read=lambda answer: answer["outputs"][0]["data"][0],
        requirements=("mlserver==1.7.1", *ENGINE),
    ),
    "litserve": Server(
        "LitServe",
        lambda port, _: ["python", str(PEERS / "litserve_server.py"), str(port), "bundle"],
        read=lambda answer: answer["answer"],
        requirements=("litserve==0.2.19", *ENGINE),
    ),
    "bentoml": Server(
        "BentoML",
        lambda port, _: [
            *("bentoml", "serve", "bentoml_service:Arithmetic", "--host", "127.0.0.1"),
            *("--port", str(port), "--working-dir", str(PEERS)),
        ],
        body=lambda text: {"equations": [text]},
        read=lambda answer: answer[0],
        requirements=("bentoml==1.4.40", *ENGINE),
        environment=lambda _: {
            "BUNDLE": str(ROOT / "bundle"),
            "BENTOML_DO_NOT_TRACK": "true",
        },
    ),
    "mlflow": Server(
        "mlflow models serve",
        lambda port, _: [
            *("mlflow", "models", "serve", "-m", f"models:/{MODEL}/1", "--env-manager", "local"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        ],
        path="/invocations",
        body=lambda text: {"dataframe_split": {"columns": ["equation"], "data": [[text]]}},
        read=lambda answer: answer["predictions"][0]["answer"],
        # What the registered version asks for.
        requirements=("mlflow==3.17.2", "pandas==3.1.1", *ENGINE),
        # uvicorn reads its options from variables, too.
        environment=lambda uri: {"MLFLOW_TRACKING_URI": uri, "UVICORN_ACCESS_LOG": "false"},
        batches=False,
    ),
    "multiplication": Server("this service, ×", operations="*", **_service(2)),
    "division": Server("this service, ÷", operations="/", **_service(2)),
}


def installed(name: str) -> Path:
    """The folder of programs of a server's environment, which is made if it is not there.

    Raises:
        Problem: pip cannot install it; the sentence ends with pip's reason.
    """
    requirements = SERVERS[name].requirements
    if not requirements:
        return Path(sys.executable).parent
    folder = ENVIRONMENTS / name
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder / "bin"
    print(f"making {folder.relative_to(ROOT)} …", flush=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--disable-pip-version-check", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1] if errors else done.stderr.strip()[-300:]
            raise Problem(f"{name} cannot be installed here ({reason})")
    stamp.write_text(wanted)
    return folder / "bin"


def versions(name: str, programs: Path) -> dict[str, str]:
    """What a server runs on: package to version, of the packages that matter for speed."""
    wanted = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "onnxruntime", "numpy")
    own = tuple(text.split("==")[0] for text in SERVERS[name].requirements)
    code = (
        "import json, importlib.metadata as m\n"
        f"print(json.dumps({{d.name: d.version for d in m.distributions() "
        f"if d.name.lower() in {sorted({*wanted, *own})!r}}}))"
    )
    done = subprocess.run(
        [programs / "python", "-c", code], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return dict(sorted(found.items()))


def environment(name: str, tracking_uri: str, port: int, scratch: Path) -> dict[str, str]:
    """The variables that a server is started with."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    # mlflow's version carries its own code; the others find `arithmetic` here.
    path = "" if name == "mlflow" else f"{ROOT}{os.pathsep}{PEERS}"
    return {
        **kept,
        "PYTHONPATH": path,
        "PATH": f"{ENVIRONMENTS / name / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "MODEL_CACHE": str(scratch / "models"),
        "OMP_NUM_THREADS": "1",
        **SERVERS[name].environment(tracking_uri),
    }
