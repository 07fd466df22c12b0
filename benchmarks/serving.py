"""Measure the service beside the servers that a user could choose instead, and what it costs.

    make bench-serving                python -m benchmarks.serving [--only service constant]
    make bench-serving-environment    python -m benchmarks.serving --environment
    make bench-profile                python -m benchmarks.serving --profile

Each server has one core to itself, `wrk` the other; all answer the same equations by the same model
(one answers a constant). A round starts each server anew, checks its answers, warms it up and
measures 64 connections and one; each round begins with another server. Medians over the rounds.
Peers live in environments of their own in `.bench/`. Writes benchmarks/results/serving.json.

`--environment` measures this service in the environment of its image, made from serving.lock alone,
and imports mlflow there, which the target for the start is a multiple of. Writes
benchmarks/results/serving-environment.json.

`--profile` samples the service under load by `py-spy` (fetched by `uvx`, root). A function's share
is that of the samples in which it runs, without those that it calls; C code counts as the function
that calls it. Writes benchmarks/results/serving-profile.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import solve
from benchmarks.results_file import ROOT, table, write
from benchmarks.serving_load import BODY, cores, make_bodies, random_equations, run_wrk
from benchmarks.serving_process import memory_mb, pin, pinned_service, registry
from benchmarks.workspace import environment, run, time_run
from registry import MODEL_NAME
from scripts.server_process import ServerProcess, free_port, request

PEERS = ROOT / "benchmarks" / "peers"
ENGINE = ("onnxruntime==1.32.0", "numpy==2.4.6", "pydantic==2.14.4")
LOCK = str(ROOT / "requirements" / "serving.lock")
IMAGE = ("--only-binary", ":all:", "--require-hashes", "--no-deps", "-r", LOCK)
MANY, CHECKED = 64, 50
SAMPLER, LARGEST = ("uvx", "-q", "py-spy==0.4.3", "record", "--nonblocking", "-r", "500"), 20
# A stack in py-spy's raw format, and its count: the innermost function's name, file and line.
STACK = re.compile(r"(?:.*;)?(.*) \((.*):\d+\) (\d+)")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """Describe a server; `{port}`, `{port2}`, `{model}`, `{uri}` and `{folder}` are filled in.

    Attributes:
        requirements: of its environment; empty for this one.
        ready: the path that answers 200 when it serves.
        body: JSON with EQUATION in it.
        read: a parsed response to the answer's text.
        constant: the answer of one that answers everything alike.
    """

    title: str
    command: str
    requirements: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    ready: str = "/docs"
    path: str = "/predict"
    body: str = BODY
    read: Callable[[Any], str] = lambda answer: answer["predicted_answer"]
    constant: str = ""


SERVERS = {
    "service": Server(
        "this service, + and −",
        "python -m serving",
        variables={
            "PORT": "{port}",
            "MLFLOW_TRACKING_URI": "{uri}",
            "MODEL_URI": f"models:/{MODEL_NAME}@Production",
            "MODEL_CACHE": "{folder}/models",
        },
        ready="/readyz",
    ),
    "constant": Server(
        "FastAPI, constant answer",
        "python -m benchmarks.peers.fastapi_app {port}",
        constant="962",
    ),
    "torch": Server(
        "FastAPI, torch eager", "python -m benchmarks.peers.fastapi_app {port} {model}"
    ),
    "mlserver": Server(
        "MLServer",
        "mlserver start {folder}",
        ("mlserver==1.7.1", *ENGINE),
        {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port2}",
            "MLSERVER_METRICS_ENDPOINT": "",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_MODEL_NAME": MODEL_NAME,
            "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_runtime.Arithmetic",
            "MLSERVER_MODEL_MAX_BATCH_SIZE": "64",
            "MLSERVER_MODEL_MAX_BATCH_TIME": "0.001",
            "MLSERVER_MODEL_URI": "{model}",
        },
        ready=f"/v2/models/{MODEL_NAME}/ready",
        path=f"/v2/models/{MODEL_NAME}/infer",
        body='{"inputs": [{"name": "equation", "shape": [1, 1], "datatype": "BYTES", '
        '"data": ["EQUATION"]}]}',
        read=lambda answer: answer["outputs"][0]["data"][0],
    ),
    "litserve": Server(
        "LitServe",
        f"python {PEERS}/litserve_server.py {{port}} {{model}}",
        ("litserve==0.2.19", *ENGINE),
        ready="/health",
        read=lambda answer: answer["answer"],
    ),
    "bentoml": Server(
        "BentoML",
        "bentoml serve bentoml_service:Arithmetic --host 127.0.0.1 --port {port} "
        f"--working-dir {PEERS}",
        ("bentoml==1.4.40", *ENGINE),
        {"MODEL": "{model}", "BENTOML_DO_NOT_TRACK": "true"},
        ready="/readyz",
        body='{"equations": ["EQUATION"]}',
        read=lambda answer: answer[0],
    ),
    "mlflow": Server(
        "mlflow models serve",
        f"mlflow models serve -m models:/{MODEL_NAME}/1 --env-manager local --host 127.0.0.1 "
        "--port {port} --workers 1",
        ("mlflow==3.17.2", "pandas==3.1.1", *ENGINE),  # as the registered version requires
        # A version carries its own code.
        {"MLFLOW_TRACKING_URI": "{uri}", "UVICORN_ACCESS_LOG": "false", "PYTHONPATH": ""},
        ready="/ping",
        path="/invocations",
        body='{"dataframe_split": {"columns": ["equation"], "data": [["EQUATION"]]}}',
        read=lambda answer: answer["predictions"][0]["answer"],
    ),
}
SERVERS["image"] = replace(SERVERS["service"], requirements=IMAGE)


@cache
def install(name: str) -> Path:
    """Return the folder of programs of a server's environment; install that first.

    pip stays outside, as in the service's image.
    """
    if not SERVERS[name].requirements:
        return Path(sys.executable).parent
    programs = ROOT / ".bench" / name / "bin"
    print(f"installing {programs.parent.relative_to(ROOT)}", flush=True)
    run([sys.executable, "-m", "venv", "--without-pip", str(programs.parent)])
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "-q"]
    run([*pip, "--disable-pip-version-check", *SERVERS[name].requirements])
    return programs


def check(server: Server, url: str, model: Path) -> None:
    """Ask some equations; raise UserError at the first wrong answer."""
    grammar = artifacts.load_config(model).get_grammar()
    for text in random_equations(grammar, CHECKED, seed=2):
        answer = server.read(request(url, json.loads(server.body.replace("EQUATION", text))))
        expected = server.constant or solve(grammar.parse(text))
        if answer != expected:
            raise UserError(f"{server.title} answers {text}{answer} instead of {expected}")


def run_round(name: str, model: Path, uri: str, seconds: float) -> Figures:
    """Start a server, warm it up and measure it, with checks before and after."""
    server, programs = SERVERS[name], install(name)
    bodies = make_bodies(model, server.body)
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as folder:
        port = free_port()

        def fill(text: str) -> str:
            return text.format(port=port, port2=free_port(), model=model, uri=uri, folder=folder)

        program, *arguments = map(fill, server.command.split())
        variables = {"PYTHONPATH": f"{ROOT}:{PEERS}", "PATH": f"{programs}:{os.environ['PATH']}"}
        variables |= {name: fill(text) for name, text in server.variables.items()}
        command, address = [str(programs / program), *arguments], f"http://127.0.0.1:{port}"
        log, url = Path(folder) / "log", address + server.path
        process = ServerProcess(command, address, server.ready, log, environment(**variables))
        started = time.perf_counter()
        with pin(process, cores()[0]) as process:
            figures = {"ready_seconds": time.perf_counter() - started, "failures": 0}
            run_wrk(url, bodies, MANY, 1, cores()[1])
            for connections in (MANY, 1):
                check(server, url, model)  # answered after what the load before left waiting
                sample = run_wrk(url, bodies, connections, seconds, cores()[1])
                figures["failures"] += sample.pop("failures")
                figures |= {f"{key}_{connections}": value for key, value in sample.items()}
            check(server, url, model)
            return {**figures, "main_process_mb": memory_mb(process)}


def summarize(rows: list[Figures]) -> dict[str, Figures]:
    """Return medians over the rounds by server, also of the ratios to the constant answer.

    Args:
        rows: one for each server and round, with both as keys; failures are added up.
    """
    samples = pd.DataFrame(rows)
    if "constant" in set(samples["server"]):
        constant = samples[samples["server"] == "constant"].set_index("round")
        ratios = {"throughput_of_constant": f"per_second_{MANY}", "latency_of_constant": "p50_ms_1"}
        for name, key in ratios.items():
            samples[name] = samples[key] / samples["round"].map(constant[key])
    by_server = samples.drop(columns="round").groupby("server", sort=False)
    medians = by_server.median().round(3).drop(columns="failures")
    medians["failures"] = by_server["failures"].sum()
    return {str(name): row for name, row in medians.to_dict("index").items()}


def measure(names: list[str], model: Path, rounds: int, seconds: float) -> dict[str, Figures]:
    """Return the figures of these servers."""
    for name in names:
        install(name)
    rows = []
    with registry(model) as mlflow:
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                print(f"round {number + 1} of {rounds}: {SERVERS[name].title}", flush=True)
                figures = run_round(name, model, mlflow.address, seconds)
                rows.append({"server": name, "round": number, **figures})
    return summarize(rows)


def measure_environment(model: Path, rounds: int, seconds: float) -> Figures:
    """Return the figures of the service in the environment of its image, and its size."""
    programs = install("image")
    command = ["taskset", "-c", str(cores()[0]), str(programs / "python"), "-c", "import mlflow"]
    imports = median(time_run(command) for _ in range(rounds))
    (packages,) = programs.parent.glob("lib/python*/site-packages")
    size = sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file())
    return {
        "import_mlflow_seconds": round(imports, 3),
        **measure(["image"], model, rounds, seconds)["image"],
        "site_packages_mb": round(size / 1e6, 1),
    }


def parse_profile(raw: str) -> Figures:
    """Return the shares of functions and packages in py-spy's raw format."""
    leaves = pd.DataFrame(STACK.findall(raw), columns=["function", "file", "count"])
    if leaves.empty:
        raise UserError("py-spy saw no Python frame")
    leaves["count"] = leaves["count"].astype(int)
    leaves["functions"] = leaves["file"] + " " + leaves["function"]
    leaves["packages"] = leaves["file"].str.partition("/")[0]
    total, figures = int(leaves["count"].sum()), {}
    for name in ("packages", "functions"):
        shares = leaves.groupby(name)["count"].sum() / total
        figures[name] = shares.nlargest(LARGEST).round(3).to_dict()
    return {"samples": total, **figures}


def profile(model: Path, seconds: float) -> Figures:
    """Run the service on a core of its own under load, and sample it."""
    bodies, core = make_bodies(model), cores()[1]
    with registry(model) as mlflow, tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        with pinned_service(mlflow.address, Path(folder), cores()[0]) as service:
            url = f"{service.address}/predict"
            run_wrk(url, bodies, MANY, 1, core)
            record = [*SAMPLER, "-p", str(service.process.pid), "-d", str(round(seconds))]
            record += ["-f", "raw", "-o", str(raw)]
            with subprocess.Popen(record, stdout=subprocess.DEVNULL) as sampler:
                run_wrk(url, bodies, MANY, seconds + 2, core)
            if sampler.returncode:
                raise UserError(f"py-spy ended with status {sampler.returncode}", "run it as root")
        return parse_profile(raw.read_text())


def main() -> None:
    """Measure what the options name, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--environment", action="store_true", help="start-up, memory and disk")
    parser.add_argument("--profile", action="store_true", help="where the service spends its core")
    compared = [name for name in SERVERS if name != "image"]
    parser.add_argument("--only", nargs="+", choices=compared, default=compared)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--no-result", action="store_true", help="write nothing: a test")
    options = parser.parse_args()
    with cli_errors():
        model, rounds, seconds = options.model.resolve(), options.rounds, options.seconds
        if options.environment:
            name, figures = "serving-environment", measure_environment(model, rounds, seconds)
            print(table([figures]))
        elif options.profile:
            name, figures = "serving-profile", profile(model, rounds * seconds)
            print(pd.Series(figures["functions"], name="share").to_string())
        else:
            name, figures = "serving", {"servers": measure(options.only, model, rounds, seconds)}
            rows = figures["servers"].items()
            print(table([{"server": SERVERS[key].title, **row} for key, row in rows]))
        if not options.no_result:
            general = {
                "rounds": rounds,
                "seconds": seconds,
                "model_digest": artifacts.digest(model),
            }
            print(f"wrote {write(name, {**general, **figures})}")


if __name__ == "__main__":
    main()
