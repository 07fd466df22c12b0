"""Define the servers that `benchmarks.serving` compares: how each is installed, started and asked.

Peers live in environments of their own in `.bench/`, made once with pip.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from benchmarks.serving_process import Process, fetch, free_port
from registry import MODEL_NAME

PEERS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / ".bench"  # ignored by git
ENGINE = ("onnxruntime==1.32.0", "numpy==2.4.6", "pydantic==2.14.4")
REPORTED = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Place:
    """Hold where a server runs and what it serves."""

    port: int
    folder: Path
    model: Path
    tracking_uri: str


@dataclass(frozen=True)
class Server:
    """Describe a server.

    Attributes:
        title: its name in the table.
        command: the program of its environment with arguments.
        requirements: of its environment; empty for this one.
        variables: of its process.
        path: of the prediction route.
        body: an equation to a JSON body.
        read: a parsed response to the answer's text.
        operations: of the equations it is asked.
        is_constant: it answers everything alike.
    """

    title: str
    command: Callable[[Place], list[str]]
    requirements: tuple[str, ...] = ()
    variables: Callable[[Place], dict[str, str]] = lambda place: {}
    path: str = "/predict"
    body: Callable[[str], Any] = lambda text: {"equation": text}
    read: Callable[[Any], str] = lambda answer: answer["predicted_answer"]
    operations: str = "+-"
    is_constant: bool = False


def service(title: str, operations: str, model_uri: str = "") -> Server:
    """Return this service; without a model URI it serves the directory `place.model`."""
    return Server(
        title,
        lambda place: ["python", "-m", "serving"],
        variables=lambda place: {
            "MLFLOW_TRACKING_URI": place.tracking_uri,
            "MODEL_URI": model_uri or str(place.model),
            "MODEL_CACHE": str(place.folder / "models"),
            "PORT": str(place.port),
        },
        operations=operations,
    )


def mlserver(place: Place) -> list[str]:
    """Write MLServer's settings files; return its command."""
    general = {
        "host": "127.0.0.1",
        "http_port": place.port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": MODEL_NAME,
        "implementation": "mlserver_runtime.Arithmetic",
        "max_batch_size": 64,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(place.model)},
    }
    (place.folder / "settings.json").write_text(json.dumps(general))
    (place.folder / "model-settings.json").write_text(json.dumps(model))
    return ["mlserver", "start", str(place.folder)]


SERVERS = {
    "service": service("this service, + and −", "+-", f"models:/{MODEL_NAME}@Production"),
    "constant": Server(
        "FastAPI, constant answer",
        lambda place: ["python", "-m", "benchmarks.peers.constant", str(place.port)],
        is_constant=True,
    ),
    "torch": Server(
        "FastAPI, torch eager",
        lambda place: [
            *("python", "-m", "benchmarks.peers.torch_eager", str(place.port), str(place.model))
        ],
    ),
    "mlserver": Server(
        "MLServer",
        mlserver,
        ("mlserver==1.7.1", *ENGINE),
        path=f"/v2/models/{MODEL_NAME}/infer",
        body=lambda text: {
            "inputs": [{"name": "equation", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
        },
        read=lambda answer: answer["outputs"][0]["data"][0],
    ),
    "litserve": Server(
        "LitServe",
        lambda place: [
            *("python", str(PEERS / "litserve_server.py"), str(place.port), str(place.model))
        ],
        ("litserve==0.2.19", *ENGINE),
        read=lambda answer: answer["answer"],
    ),
    "bentoml": Server(
        "BentoML",
        lambda place: [
            *("bentoml", "serve", "bentoml_service:Arithmetic", "--host", "127.0.0.1"),
            *("--port", str(place.port), "--working-dir", str(PEERS)),
        ],
        ("bentoml==1.4.40", *ENGINE),
        lambda place: {"MODEL": str(place.model), "BENTOML_DO_NOT_TRACK": "true"},
        body=lambda text: {"equations": [text]},
        read=lambda answer: answer[0],
    ),
    "mlflow": Server(
        "mlflow models serve",
        lambda place: [
            *("mlflow", "models", "serve", "-m", f"models:/{MODEL_NAME}/1", "--env-manager"),
            *("local", "--host", "127.0.0.1", "--port", str(place.port), "--workers", "1"),
        ],
        ("mlflow==3.17.2", "pandas==3.1.1", *ENGINE),  # as the registered version requires
        lambda place: {
            "MLFLOW_TRACKING_URI": place.tracking_uri,
            "UVICORN_ACCESS_LOG": "false",
            "PYTHONPATH": "",  # a version carries its own code
        },
        path="/invocations",
        body=lambda text: {"dataframe_split": {"columns": ["equation"], "data": [[text]]}},
        read=lambda answer: answer["predictions"][0]["answer"],
    ),
}
# With a model of all four operations (`--four-operations DIR`).
FOUR_OPERATIONS = {
    "multiplication": service("this service, ×", "*"),
    "division": service("this service, ÷", "/"),
}


def install(name: str, arguments: tuple[str, ...], lock: str = "") -> Path:
    """Return the folder of programs of an environment; make it if it is not there or changed.

    Args:
        arguments: of `pip install`; none for this environment.
        lock: the content of a file that the arguments name.

    Raises:
        UserError: pip cannot install it.
    """
    if not arguments:
        return Path(sys.executable).parent
    folder = ENVIRONMENTS / name
    stamp, content = folder / "installed.txt", "\n".join([*arguments, lock])
    if stamp.is_file() and stamp.read_text() == content:
        return folder / "bin"
    print(f"installing {folder.relative_to(ROOT)}", flush=True)
    # pip stays outside, as in the service's image.
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "-q"]
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
    for command in (make, [*pip, "--disable-pip-version-check", *arguments]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1] if errors else done.stderr.strip()[-300:]
            raise UserError(f"{name} cannot be installed here ({reason})")
    stamp.write_text(content)
    return folder / "bin"


def list_versions(programs: Path, requirements: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions of the packages that matter for speed."""
    names = {*REPORTED, *(text.split("==")[0] for text in requirements)}
    code = (
        "import json, importlib.metadata as m\n"
        "print(json.dumps({d.name: d.version for d in m.distributions() "
        f"if d.name.lower() in {sorted(names)!r}}}))"
    )
    command = [str(programs / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(sorted(json.loads(done.stdout).items()))


def ask(server: Server, url: str, text: str) -> str:
    """Return the answer to one equation; raise OSError."""
    answer: str = server.read(json.loads(fetch(url, server.body(text))))
    return answer


def build_process(server: Server, programs: Path, place: Place, core: int) -> Process:
    """Return a server as a process that is not started yet."""
    program, *arguments = server.command(place)
    url, first = f"http://127.0.0.1:{place.port}{server.path}", f"1{server.operations[0]}1="
    return Process(
        [str(programs / program), *arguments],
        lambda: bool(ask(server, url, first)),
        place.folder / "log",
        core,
        {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{PEERS}",
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            **server.variables(place),
        },
    )
