"""Load on an HTTP server: closed loops of POST requests, by `wrk` or by Python.

`wrk` is the load generator for figures: it takes a third of a core where Python takes a whole one.
The Python client checks every answer, and knows what happened to every connection.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arithmetic.errors import Problem

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True)
class Sample:
    """What one run of the load generator saw.

    Attributes:
        requests_per_second: answers of status 2xx and 3xx, and failed ones, a second.
        p50_ms, p99_ms: latency, milliseconds.
        failures: other answers, and connections lost, refused or timed out.
    """

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int


def cores() -> tuple[int, int]:
    """The core for servers and the core for load; the same one where there is but one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def require(tool: str) -> None:
    """Raise Problem, saying how to install it, if the load generator is not there."""
    if tool == "wrk" and shutil.which("wrk") is None:
        raise Problem(
            "the load generator wrk is not installed; `apt-get install wrk` (or brew), or give "
            "--load python, which is slower than some of the servers"
        )


def run(tool: str, url: str, bodies: Sequence[object], connections: int, seconds: float) -> Sample:
    """Put `connections` closed loops on `url` for a time, from the core for load.

    Args:
        tool: `wrk` or `python`.
        bodies: JSON bodies, sent in turn.

    Raises:
        Problem: the load generator failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(body) + "\n" for body in bodies)
        file.flush()
        command = ["taskset", "-c", str(cores()[1])]
        if tool == "wrk":
            # wrk counts whole seconds only.
            command += ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
            command += ["-s", str(SCRIPT), url]
        else:
            command += [sys.executable, "-m", "benchmarks.serving_client"]
            command += [url, file.name, str(connections), str(seconds)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "BODIES": file.name},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise Problem(f"{tool} failed on {url}: {(done.stdout + done.stderr).strip()[-500:]}")
    figures = json.loads(lines[-1])
    return Sample(
        round(figures["requests"] / figures["seconds"], 1),
        round(figures["p50_ms"], 3),
        round(figures["p99_ms"], 3),
        figures["failures"],
    )
