"""make bench-serving-environment: what the service costs where it is served.

An environment is made from requirements/serving.lock alone, as the Dockerfile makes it. In it the
service is started several times over a real registry, from a warm disk, with nothing downloaded
before: seconds from the start of the process until it is ready, its memory then and after load, and
the size of what is installed.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from arithmetic.errors import Problem, reported
from benchmarks.results_file import write
from benchmarks.serving_client import Loops, post
from benchmarks.serving_peers import ENVIRONMENTS, ROOT
from benchmarks.serving_process import questions
from benchmarks.serving_store import registry
from scripts.tracking_server import free_port

LOCK = ROOT / "requirements" / "serving.lock"
MEGABYTE = 1_000_000
START_SECONDS = 60.0
# What issue #6 asks.
BARS = {"ready_seconds": 2.0, "memory_after_load_mb": 200.0, "site_packages_mb": 300.0}
CONNECTIONS = 64


def made() -> Path:
    """The environment's folder; made anew when the lock is another. Raises Problem."""
    folder = ENVIRONMENTS / "serving"
    stamp = folder / "serving.lock"
    if stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes():
        return folder
    print(f"making {folder.relative_to(ROOT)} …", flush=True)
    # pip stays outside, as in the image.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin/python"),
        "install",
        "--quiet",
    ]
    options = ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)],
        [*pip, *options, "-r", str(LOCK)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Problem(f"{LOCK.name} cannot be installed: {done.stderr.strip()[-500:]}")
    stamp.write_bytes(LOCK.read_bytes())
    return folder


def size(folder: Path) -> float:
    """Megabytes of the files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / MEGABYTE


def memory(pid: int) -> float:
    """Megabytes of resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise Problem(f"/proc/{pid}/status tells no VmRSS; measure on Linux")


def ready(address: str) -> bool:
    """Whether the service has a model loaded."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(json.load(response)["model_loaded"])
    except OSError:  # urllib's errors, a 503 among them
        return False


def start(python: Path, tracking_uri: str, seconds_of_load: float) -> dict[str, float]:
    """Start once: seconds until it is ready, megabytes then and after load."""
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port("127.0.0.1")
        address = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"],
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MODEL_CACHE": str(Path(scratch) / "models"),
            "PORT": str(port),
        }
        log = Path(scratch) / "log"
        began = time.perf_counter()
        with log.open("w") as output:
            process = subprocess.Popen(
                [python, "-m", "serving"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            while not ready(address):
                if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                    raise Problem(f"the service did not start: {log.read_text()[-800:]}")
                time.sleep(0.01)
            seconds = time.perf_counter() - began
            at_start = memory(process.pid)
            url = f"{address}/predict"
            asked = [
                post(url, json.dumps({"equation": text}).encode()) for text in questions("+-", 1000)
            ]
            tally = asyncio.run(Loops(url, asked).run(CONNECTIONS, seconds_of_load))
            if tally.failures:
                raise Problem(f"{tally.failures} of {tally.answers} requests failed under load")
            return {
                "ready_seconds": seconds,
                "memory_mb": at_start,
                "memory_after_load_mb": memory(process.pid),
                "requests": tally.answers,
            }
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measure(starts: int, seconds_of_load: float) -> dict[str, Any]:
    """Medians over `starts` starts, after one that warms the disk's cache."""
    folder = made()
    with registry(four_operations=False) as uri:
        rows = [start(folder / "bin/python", uri, seconds_of_load) for _ in range(starts + 1)][1:]
    figures: dict[str, Any] = {
        key: round(statistics.median(row[key] for row in rows), 3)
        for key in ("ready_seconds", "memory_mb", "memory_after_load_mb")
    }
    (packages,) = folder.glob("lib/python*/site-packages")
    figures["site_packages_mb"] = round(size(packages), 1)
    return {**figures, "starts": rows, "met": {k: figures[k] < bar for k, bar in BARS.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load after each start")
    parser.add_argument("--result", default="serving-environment")
    given = parser.parse_args()
    with reported():
        found = measure(given.starts, given.seconds)
        for key, bar in BARS.items():
            met = "met" if found["met"][key] else "NOT MET"
            print(f"{key:22}{found[key]:9.2f}   under {bar:g}: {met}")
        print(f"{'memory_mb when ready':22}{found['memory_mb']:9.2f}")
        if given.result:
            print(f"written to {write(given.result, found).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
