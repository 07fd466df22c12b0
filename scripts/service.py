"""The serving process, started and ended by other programs."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arithmetic.errors import Problem
from scripts.client import get

START_SECONDS = 60.0
STOP_SECONDS = 10.0
KEYS = ("API_KEYS", "API_KEYS_FILE")


@contextmanager
def service(root: Path, tracking_uri: str, port: int, log: Path) -> Iterator[str]:
    """`python -m serving` on loopback for as long as the block lasts; yields its address.

    Raises:
        Problem: it ended or loaded no model in time; the sentence says why and where the log is.
    """
    # Asked by this program alone, on loopback: keys of a service that is run otherwise are not its.
    environment = {
        **{name: value for name, value in os.environ.items() if name not in KEYS},
        "MLFLOW_TRACKING_URI": tracking_uri,
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, address, log)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["reason"])
    except (ValueError, KeyError, TypeError):
        return f"something else answers there, with status {error.code}"


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    reason = "it does not answer"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if get(f"{address}/health")["model_loaded"]:
                return
        except urllib.error.HTTPError as error:
            reason = _reason(error)
        except (ValueError, KeyError, TypeError):
            reason = "something else answers there"
        except OSError:
            pass  # not listening yet; the deadline decides
        time.sleep(0.1)
    raise Problem(f"the service on {address} loaded no model ({reason}); see {log}")
