"""Run the commands of tutorial and how-tos, each page in a clone of the last commit.

    make test-docs       python -m benchmarks.tutorial

Everything is as on the page, installation and full training included; only the ports are free ones.
A how-to begins after `make run`, and gets what another page trained from DVC's cache. Writes
benchmarks/results/tutorial.json after each page, and continues from it on the same commit.
"""

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, read, table, write
from benchmarks.workspace import clone, environment
from registry.commits import head
from scripts.server_process import free_port, wait_for, wait_for_version

TUTORIAL = ROOT / "docs" / "tutorial" / "first-run.md"
HOW_TOS = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGES_NOT_RUN = {
    "docker": "needs a Docker engine; tests/serving/test_image.py runs the image",
    "kubernetes": "needs a cluster; tests/deploy/test_kubernetes.py checks the resources",
    "ray": "needs a cluster; tests/stages/test_cluster.py starts one",
    "sweeps": "its workers outlive the page",
    "team-stack": "needs a Docker engine; tests/deploy/test_stack.py starts it",
    "your-model": "needs a model of your own",
}
LINES_NOT_RUN = {  # by their first words
    "git clone": "the clone is there",
    "docker compose": "needs a Docker engine",
    "NGINX_MODE": "needs a Docker engine",
    "make promote VERSION=2 CANDIDATE_URL": "needs the containers before it",
    "dvc remote add --local --default s3": "no such bucket; tests/stages/test_remote.py has one",
    "dvc remote modify": "no such bucket",
    "export MLFLOW_TRACKING": "no such server",
    "dvc gc": "asks before it deletes",
}
SERVERS = {"make serve": ("PORT", "readyz"), "mlflow ui": ("MLFLOW_PORT", "health")}
END = "end of command"
IDENTITY = {"GIT_AUTHOR_NAME": "reader", "GIT_AUTHOR_EMAIL": "reader@example.com"}
IDENTITY |= {"GIT_COMMITTER_NAME": "reader", "GIT_COMMITTER_EMAIL": "reader@example.com"}


def read_lines(page: Path) -> list[str]:
    """Return the lines after `$ ` in the `console` blocks of a page, continued lines joined."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    ]


def run_lines(lines: list[str], folder: Path, **variables: str) -> list[dict[str, Any]]:
    """Run lines one after the other in one bash in `folder`; leave servers running until the end.

    Returns:
        For each line the command, its seconds and its output; for a promotion or a rollback while a
        service runs also the seconds until it has swapped.

    Raises:
        UserError: a command failed, or a server was late.
    """
    ports = {variable: str(free_port()) for variable, _ in SERVERS.values()}
    service = f"http://localhost:{ports['PORT']}"
    (folder / ".curlrc").write_text("fail-with-body\n", "utf-8")  # else an error is a success
    variables |= {**ports, **IDENTITY, "CURL_HOME": str(folder)}
    variables["MODEL_CACHE"] = str(folder / ".models")
    rows: list[dict[str, Any]] = []
    with open_shell(folder, environment(**variables)) as shell:
        for line in lines:
            if line.startswith(tuple(LINES_NOT_RUN)):
                continue
            command = line.partition(" #")[0].strip().replace("localhost:8000", service)
            started = time.monotonic()
            server = next(filter(command.endswith, SERVERS), None)
            output = run_command(shell, f"{command} &>/dev/null &" if server else command)
            if server:
                variable, path = SERVERS[server]
                wait_for(f"http://localhost:{ports[variable]}/{path}", f"run `{command}`")
            seconds = round(time.monotonic() - started, 1)
            rows.append({"command": command, "seconds": seconds, "output": output})
            promoted = re.match(r"version (\d+) of \S+ is Production now", output)
            if promoted and any(row["command"].endswith("make serve") for row in rows):
                rows[-1]["swap_seconds"] = round(wait_for_version(service, promoted[1]), 1)
    return rows


@contextmanager
def open_shell(folder: Path, variables: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run bash in `folder`; end what it started in the background when the block is left."""
    shell = subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield shell
    finally:
        shell.communicate("kill $(jobs -p)\nwait\n", timeout=60)


def run_command(shell: "subprocess.Popen[str]", command: str) -> str:
    """Run a command in the shell, where variables and folders stay; return its output.

    Raises:
        UserError: it failed.
    """
    assert shell.stdin
    assert shell.stdout
    shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n{END} %s\\n' $?\n")
    shell.stdin.flush()
    output, ended = "", ""
    for line in shell.stdout:
        if line.startswith(END):
            ended = line
            break
        output += line
    if ended != f"{END} 0\n":
        raise UserError(f"`{command}` failed: {output[-2000:]}")
    return output.removesuffix("\n")


def run_page(page: Path, scratch: Path) -> list[dict[str, Any]]:
    """Run a page in a clone that is removed afterwards; return the seconds of each command."""
    lines = [line.replace("/mnt/team", str(scratch / "team")) for line in read_lines(page)]
    with tempfile.TemporaryDirectory(dir=scratch) as parent:
        folder = clone(Path(parent) / "arithmetic-lm")
        cache = f"[cache]\n    dir = {scratch / 'cache'}\n"
        (folder / ".dvc" / "config.local").write_text(cache, "utf-8")
        rows = run_lines([*([] if page == TUTORIAL else ["make run"]), *lines], folder)
    return [{key: row[key] for key in row if key != "output"} for row in rows]


def main() -> None:
    """Run all pages and write the result."""
    commit = head(ROOT) or ""
    pages = read("tutorial", commit).get("pages", {})
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        for page in (TUTORIAL, *HOW_TOS):
            if page.stem in {*pages, *PAGES_NOT_RUN}:
                continue
            print(f"\n{page.stem}", flush=True)
            pages[page.stem] = run_page(page, Path(scratch))
            print(table(pages[page.stem]))
            not_run = {"pages": PAGES_NOT_RUN, "lines": LINES_NOT_RUN}
            path = write("tutorial", {"code": commit, "pages": pages, "not_run": not_run})
        print(path)


if __name__ == "__main__":
    main()
