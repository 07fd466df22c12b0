"""Measure start-up, memory and disk of the service in the environment of its image.

    make bench-serving-environment        python -m benchmarks.serving_environment [--starts 5]

The environment is made from requirements/serving.lock alone, as the Dockerfile does, in `.bench/`.
The service starts several times over a real registry, with nothing downloaded before. Beside it the
import of mlflow in the same environment, which the target for the start is a multiple of. Writes
benchmarks/results/serving-environment.json.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, write
from benchmarks.serving_load import Loops, cores, encode_post, random_equations
from benchmarks.serving_peers import install
from benchmarks.serving_process import registry, service
from benchmarks.workspace import environment

LOCK = ROOT / "requirements" / "serving.lock"
CONNECTIONS = 64
IMPORTS = 2.0  # the start takes at most so many times the import of mlflow
LARGEST_MB = 200.0  # after load


def start_once(python: str, uri: str, model: Path, seconds_of_load: float) -> dict[str, float]:
    """Start the service with an empty cache; return its seconds and its memory.

    Raises:
        UserError: it does not start, or a request fails.
    """
    grammar = artifacts.load_config(model).get_grammar()
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
        process, address = service(uri, Path(scratch), cores()[0], python)
        try:
            row = {"ready_seconds": round(process.start(), 3), "ready_mb": process.memory_mb()}
            url = f"{address}/predict"
            texts = random_equations(grammar, "+-", 1000)
            loops = Loops(url, [encode_post(url, {"equation": text}) for text in texts])
            asyncio.run(loops.run(CONNECTIONS, seconds_of_load))
            if loops.failures:
                raise UserError(f"{loops.failures} requests failed under load")
            return {**row, "loaded_mb": process.memory_mb(), "requests": loops.statuses[200]}
        finally:
            process.stop()


def time_import(python: str) -> float:
    """Return the seconds of `python -c "import mlflow"` on the core for servers."""
    command = ["taskset", "-c", str(cores()[0]), python, "-c", "import mlflow"]
    started = time.perf_counter()
    subprocess.run(command, env=environment(), check=True)
    return round(time.perf_counter() - started, 3)


def measure(model: Path, starts: int, seconds_of_load: float) -> dict[str, Any]:
    """Return medians over `starts` starts, after one that warms the disk's cache."""
    options = ("--only-binary", ":all:", "--require-hashes", "-r", str(LOCK))
    programs = install("serving", options, LOCK.read_text())
    python = str(programs / "python")
    with registry(model, cores()[1]) as (_, uri):
        rows = [
            {
                "import_mlflow_seconds": time_import(python),
                **start_once(python, uri, model, seconds_of_load),
            }
            for _ in range(starts + 1)
        ][1:]
    figures: dict[str, Any] = {key: round(median(row[key] for row in rows), 3) for key in rows[0]}
    (packages,) = programs.parent.glob("lib/python*/site-packages")
    files = (path for path in packages.rglob("*") if path.is_file())
    figures["site_packages_mb"] = round(sum(path.lstat().st_size for path in files) / 1e6, 1)
    start_limit = IMPORTS * figures["import_mlflow_seconds"]
    targets = {
        f"ready within {IMPORTS:g} times the import of mlflow": (
            figures["ready_seconds"] <= start_limit
        ),
        f"at most {LARGEST_MB:g} MB after load": figures["loaded_mb"] <= LARGEST_MB,
    }
    return {**figures, "starts": rows, "targets_met": targets}


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_environment")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load after each start")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--result", default="serving-environment", help="name; empty for none")
    options = parser.parse_args()
    with cli_errors():
        figures = measure(options.model.resolve(), options.starts, options.seconds)
        for key, value in figures.items():
            if isinstance(value, int | float):
                print(f"{key:24}{value:10,.2f}")
        for target, is_met in figures["targets_met"].items():
            print(f"{'met' if is_met else 'NOT MET'}: {target}")
        if options.result:
            print(f"wrote {write(options.result, figures)}")


if __name__ == "__main__":
    main()
