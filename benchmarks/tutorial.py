"""Run the commands of docs/tutorial/first-run.md in a clone of the last commit, as a user would.

    make test-docs       python -m benchmarks.tutorial

Everything is as in the document, the installation and the full training included; only the ports
are free ones. Writes benchmarks/results/tutorial.json: the seconds of each command.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.workspace import clone, environment
from scripts.quickstart import free_port, request, wait_for

TUTORIAL = ROOT / "docs" / "tutorial" / "first-run.md"
SERVERS = {"make serve": ("PORT", "readyz"), "mlflow ui": ("MLFLOW_PORT", "health")}
SWAP_SECONDS = 60.0  # at most; on a quiet machine three


def read_lines(page: Path) -> list[str]:
    """Return the lines after `$ ` in the `console` blocks of a page, continued lines joined."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    ]


def run_lines(lines: list[str], folder: Path, **more: str) -> list[dict[str, Any]]:
    """Run each line with bash in `folder`; leave what serves running until the end.

    Returns:
        For each line the command, its seconds and its output; after a promotion or a rollback also
        the seconds until the service has swapped, and its version.

    Raises:
        UserError: a command failed, or a server was not ready in time.
    """
    ports = {variable: str(free_port()) for variable, _ in SERVERS.values()}
    variables = environment(**ports, MODEL_CACHE=str(folder / ".models"), **more)
    service = f"http://localhost:{ports['PORT']}"
    activation, servers, rows = "", [], []

    def add_row(command: str, started: float, output: str) -> None:
        seconds = round(time.monotonic() - started, 1)
        rows.append({"command": command, "seconds": seconds, "output": output})

    try:
        for line in lines:
            command = line.partition(" #")[0].strip().replace("localhost:8000", service)
            if command.startswith("git clone"):
                continue  # `folder` is the clone
            if command.startswith("source "):
                activation = f"{command}; "
            is_swap = command.startswith(("make promote", "make rollback"))
            before, started, output = get_version(service) if is_swap else "", time.monotonic(), ""
            process = subprocess.Popen(
                ["bash", "-c", activation + command],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if command in SERVERS else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            if command in SERVERS:
                servers.append(process)
                variable, path = SERVERS[command]
                wait_for(f"http://localhost:{ports[variable]}/{path}", f"run `{command}`")
            else:
                output = process.communicate()[0]
                if process.returncode:
                    raise UserError(f"`{command}` failed: {output[-2000:]}")
            add_row(command, started, output)
            if is_swap:
                started = time.monotonic()
                while get_version(service) == before and time.monotonic() < started + SWAP_SECONDS:
                    time.sleep(0.1)
                add_row("the service swaps", started, get_version(service))
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
    return rows


def get_version(service: str) -> str:
    """Return the version that a service answers with."""
    return str(request(f"{service}/health")["model_version"])


def main() -> None:
    """Run the tutorial and write the result."""
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        rows = run_lines(read_lines(TUTORIAL), clone(Path(scratch) / "arithmetic-lm"))
        seconds = round(time.monotonic() - started, 1)
        commands = [{key: row[key] for key in ("command", "seconds")} for row in rows]
        print(table(commands))
        path = write("tutorial", {"seconds": seconds, "commands": commands})
        print(f"{seconds:.0f} s in all:", path)


if __name__ == "__main__":
    main()
