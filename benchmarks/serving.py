"""Measure the service beside the servers that a user could choose instead, and what it costs.

    make bench-serving                python -m benchmarks.serving [--only service,constant]
    make bench-serving-environment    python -m benchmarks.serving --environment

Each server has one core to itself, `wrk` the other; all answer the same equations by the same model
(one answers a constant). A round starts each server anew, checks its answers, warms it up and
measures 64 connections and one; each round begins with another server. Medians over the rounds.
Peers live in environments of their own in `.bench/`. Writes benchmarks/results/serving.json.

`--environment` starts this service in the environment of its image, made from serving.lock alone,
and imports mlflow there, which the target for the start is a multiple of. Writes
benchmarks/results/serving-environment.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import solve
from benchmarks.results_file import ROOT, print_targets, table, write
from benchmarks.serving_load import cores, random_equations, run_wrk
from benchmarks.serving_process import Process, registry
from benchmarks.workspace import environment
from registry import MODEL_NAME
from scripts.quickstart import free_port, request

PEERS = ROOT / "benchmarks" / "peers"
ENGINE = ("onnxruntime==1.32.0", "numpy==2.4.6", "pydantic==2.14.4")
LOCK = str(ROOT / "requirements" / "serving.lock")
IMAGE = ("--only-binary", ":all:", "--require-hashes", "--no-deps", "-r", LOCK)
MANY, CHECKED, EQUATIONS = 64, 50, 1000

Figures = dict[str, float]


@dataclass(frozen=True)
class Server:
    """Describe a server; `{port}`, `{port2}`, `{model}`, `{uri}` and `{folder}` are filled in.

    Attributes:
        requirements: of its environment; empty for this one.
        ready: the path that answers 200 when it serves.
        body: JSON with EQUATION in it.
        read: a parsed response to the answer's text.
        operations: of the equations it is asked.
        constant: the answer of one that answers everything alike.
    """

    title: str
    command: str
    requirements: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    ready: str = "/docs"
    path: str = "/predict"
    body: str = '{"equation": "EQUATION"}'
    read: Callable[[Any], str] = lambda answer: answer["predicted_answer"]
    operations: str = "+-"
    constant: str = ""


def service(title: str, operations: str, model_uri: str) -> Server:
    """Return this service."""
    variables = {"PORT": "{port}", "MODEL_URI": model_uri, "MODEL_CACHE": "{folder}/models"}
    variables["MLFLOW_TRACKING_URI"] = "{uri}"
    command, ready = "python -m serving", "/readyz"
    return Server(title, command, variables=variables, ready=ready, operations=operations)


SERVERS = {
    "service": service("this service, + and −", "+-", f"models:/{MODEL_NAME}@Production"),
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
# With a model of all four operations (`--four-operations DIR`).
FOUR_OPERATIONS = {
    "multiplication": service("this service, ×", "*", "{model}"),
    "division": service("this service, ÷", "/", "{model}"),
}


@cache
def install(name: str, arguments: tuple[str, ...]) -> Path:
    """Return the folder of programs of an environment, made by `pip install` with arguments.

    Without any it is this one. pip stays outside, as in the service's image.
    """
    if not arguments:
        return Path(sys.executable).parent
    programs = ROOT / ".bench" / name / "bin"
    print(f"installing {programs.parent.relative_to(ROOT)}", flush=True)
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "-q"]
    venv = [sys.executable, "-m", "venv", "--without-pip", str(programs.parent)]
    for command in (venv, [*pip, "--disable-pip-version-check", *arguments]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{name} cannot be installed here: {done.stderr.strip()[-300:]}")
    return programs


def check(server: Server, url: str, model: Path) -> None:
    """Ask some equations; raise UserError at the first wrong answer."""
    grammar = artifacts.load_config(model).get_grammar()
    for text in random_equations(grammar, server.operations, CHECKED, seed=2):
        answer = server.read(request(url, json.loads(server.body.replace("EQUATION", text))))
        expected = server.constant or solve(grammar.parse(text))
        if answer != expected:
            raise UserError(f"{server.title} answers {text}{answer} instead of {expected}")


def run_round(server: Server, programs: Path, model: Path, uri: str, seconds: float) -> Figures:
    """Start a server, warm it up and measure it, with checks before and after."""
    grammar = artifacts.load_config(model).get_grammar()
    texts = random_equations(grammar, server.operations, EQUATIONS)
    bodies = [server.body.replace("EQUATION", text) for text in texts]
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as folder:
        port = free_port()

        def fill(text: str) -> str:
            return text.format(port=port, port2=free_port(), model=model, uri=uri, folder=folder)

        program, *arguments = map(fill, server.command.split())
        variables = {"PYTHONPATH": f"{ROOT}:{PEERS}", "PATH": f"{programs}:{os.environ['PATH']}"}
        variables |= {name: fill(text) for name, text in server.variables.items()}
        command, address = [str(programs / program), *arguments], f"http://127.0.0.1:{port}"
        log, url = Path(folder) / "log", address + server.path
        process = Process(command, address + server.ready, log, cores()[0], **variables)
        try:
            figures = {"ready_seconds": process.start(), "failures": 0}
            run_wrk(url, bodies, MANY, 1, cores()[1])
            for connections in (MANY, 1):
                check(server, url, model)  # answered after what the load before left waiting
                sample = run_wrk(url, bodies, connections, seconds, cores()[1])
                figures["failures"] += sample.pop("failures")
                figures |= {f"{key}_{connections}": value for key, value in sample.items()}
            check(server, url, model)
            return {**figures, "main_process_mb": process.memory_mb()}
        finally:
            process.stop()


def summarize(rounds: list[Figures], constant: list[Figures]) -> Figures:
    """Return medians over the rounds, also of the ratios to the constant answer."""
    keys = [key for key in rounds[0] if key != "failures"]
    row = {key: round(median(figures[key] for figures in rounds), 3) for key in keys}
    ratios = {"throughput_of_constant": f"per_second_{MANY}"}
    ratios |= {"latency_of_constant": "p50_ms_1"}
    for name, key in ratios.items() if constant else ():
        pairs = zip(rounds, constant, strict=True)
        row[name] = round(median(a[key] / b[key] for a, b in pairs), 3)
    row["failures"] = sum(figures["failures"] for figures in rounds)
    return row


def judge_targets(row: Figures) -> dict[str, bool]:
    """Return which targets the service meets."""
    throughput, latency = row["throughput_of_constant"], row["latency_of_constant"]
    return {
        "throughput at least 1.2 times the constant answer's": throughput >= 1.2,
        "throughput at least 1.0 times the constant answer's": throughput >= 1.0,
        "one client at most 0.5 ms or 4 times the constant answer": (
            row["p50_ms_1"] <= 0.5 or latency <= 4.0
        ),
    }


def measure(
    servers: dict[str, Server], models: dict[str, Path], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure all servers; one that cannot be installed or started is in `not_measured`."""
    samples: dict[str, list[Figures]] = {name: [] for name in servers}
    missing: dict[str, str] = {}
    with registry(models["+-"]) as (_, uri):
        for number in range(rounds):
            order = list(samples)
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                server = servers[name]
                print(f"round {number + 1} of {rounds}: {server.title}", flush=True)
                try:
                    programs = install(name, server.requirements)
                    figures = run_round(server, programs, models[server.operations], uri, seconds)
                    samples[name].append(figures)
                except (UserError, OSError) as error:
                    if not server.requirements:
                        raise  # no figures without our own
                    missing[name] = str(error)
                    del samples[name]
    constant = samples.get("constant", [])
    rows = {name: summarize(rounds, constant) for name, rounds in samples.items()}
    targets = judge_targets(rows["service"]) if {"service", "constant"} <= set(rows) else {}
    return {"servers": rows, "not_measured": missing, "targets_met": targets}


def show(figures: dict[str, Any], servers: dict[str, Server]) -> None:
    """Print the table, and the servers that were not measured."""
    rows = figures["servers"].items()
    print(table([{"server": servers[name].title, **row} for name, row in rows]))
    for name, reason in figures["not_measured"].items():
        print(f"{servers[name].title} not measured: {reason}")


def measure_environment(model: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Start the service in the environment of its image; medians after one round that warms up."""
    programs, rows = install("serving", IMAGE), []
    with registry(model) as (_, uri):
        for _ in range(rounds + 1):
            started = time.perf_counter()
            command = ["taskset", "-c", str(cores()[0]), str(programs / "python")]
            subprocess.run([*command, "-c", "import mlflow"], env=environment(), check=True)
            imported = {"import_mlflow_seconds": time.perf_counter() - started}
            rows.append(imported | run_round(SERVERS["service"], programs, model, uri, seconds))
    figures = summarize(rows[1:], [])
    (packages,) = programs.parent.glob("lib/python*/site-packages")
    sizes = [path.lstat().st_size for path in packages.rglob("*") if path.is_file()]
    limit = 2 * figures["import_mlflow_seconds"]
    targets = {
        "ready within 2 times the import of mlflow": figures["ready_seconds"] <= limit,
        "at most 200 MB after load": figures["main_process_mb"] <= 200,
    }
    return {**figures, "site_packages_mb": round(sum(sizes) / 1e6, 1), "targets_met": targets}


def main() -> None:
    """Measure what the options name, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--environment", action="store_true", help="start-up, memory and disk")
    parser.add_argument("--only", default="", help="names with commas between; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--four-operations", type=Path, help="a model directory of + - * and /")
    parser.add_argument("--no-result", action="store_true", help="write nothing: a test")
    options = parser.parse_args()
    with cli_errors():
        model, four = options.model.resolve(), options.four_operations
        if options.environment:
            figures = measure_environment(model, options.rounds, options.seconds)
            print(table([{key: v for key, v in figures.items() if key != "targets_met"}]))
        else:
            servers = {**SERVERS, **(FOUR_OPERATIONS if four else {})}
            names = options.only.split(",") if options.only else list(servers)
            if unknown := sorted(set(names) - set(servers)):
                choices = ", ".join(servers)
                raise UserError(f"there is no server {unknown[0]!r}", f"choose from {choices}")
            models = {"+-": model} | (dict.fromkeys("*/", four.resolve()) if four else {})
            servers = {name: servers[name] for name in names}
            figures = measure(servers, models, options.rounds, options.seconds)
            show(figures, servers)
        print_targets(figures["targets_met"])
        if not options.no_result:
            name = "serving-environment" if options.environment else "serving"
            general = {"rounds": options.rounds, "seconds": options.seconds}
            digest = {"model_digest": artifacts.digest(model)}
            print(f"wrote {write(name, {**general, **digest, **figures})}")


if __name__ == "__main__":
    main()
