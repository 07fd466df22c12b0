"""A competitor as a process on its own core, for as long as a block lasts."""

import json
import os
import random
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arithmetic.errors import Problem
from arithmetic.grammar import OPERATIONS, Grammar, solve
from benchmarks.serving_load import cores
from benchmarks.serving_peers import ROOT, SERVERS, environment
from scripts.tracking_server import free_port

START_SECONDS = 120.0
STOP_SECONDS = 10.0
CONSTANT = "962"
LARGEST_OPERAND = 999


def questions(operations: str, count: int, seed: int = 1) -> list[str]:
    """Random equations of these operations, in turn."""
    rng, grammar = random.Random(seed), Grammar(tuple(operations), LARGEST_OPERAND)
    found = []
    for index in range(count):
        operation = grammar.operations[index % len(operations)]
        smallest = OPERATIONS[operation].smallest_operand_2
        first, second = rng.randint(0, LARGEST_OPERAND), rng.randint(smallest, LARGEST_OPERAND)
        found.append(f"{first}{operation}{second}=")
    return found


def expected(name: str, question: str) -> str:
    """The right answer; of the constant route its only one."""
    if SERVERS[name].constant:
        return CONSTANT
    operations = tuple(SERVERS[name].operations)
    return solve(Grammar(operations, LARGEST_OPERAND).parse(question))


def ask(name: str, url: str, question: str) -> str:
    """One question to one answer; raises OSError or urllib's errors."""
    server = SERVERS[name]
    request = urllib.request.Request(
        url, json.dumps(server.body(question)).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return server.read(json.load(response))


def check(name: str, url: str, count: int) -> None:
    """Ask `count` questions one by one; raises Problem at the first answer that is not right."""
    for question in questions(SERVERS[name].operations, count, seed=2):
        answer, right = ask(name, url, question), expected(name, question)
        if answer != right:
            raise Problem(
                f"{SERVERS[name].title} answers {question}{answer} and {right} is right; "
                "its figures would mean nothing"
            )


@contextmanager
def running(name: str, programs: Path, tracking_uri: str) -> Iterator[str]:
    """Start a server alone on the core for servers; yields the address of its questions.

    Raises:
        Problem: it does not answer; the sentence ends with its last words.
    """
    server = SERVERS[name]
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        scratch, port = Path(folder), free_port("127.0.0.1")
        program, *arguments = server.command(port, scratch)
        with (scratch / "log").open("w") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(cores()[0]), str(programs / program), *arguments],
                cwd=ROOT,
                env=environment(name, tracking_uri, port, scratch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}{server.path}"
        try:
            _wait(name, url, process, scratch / "log")
            yield url
        finally:
            _end(process)


def _wait(name: str, url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    reason = "it does not listen"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(name, url, questions(SERVERS[name].operations, 1)[0])
            return
        except urllib.error.HTTPError as error:
            reason = f"status {error.code}"
        except OSError:
            pass  # not listening yet; the deadline decides
        time.sleep(0.1)
    last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-5:])
    raise Problem(f"{SERVERS[name].title} does not answer on {url} ({reason}): {last[-800:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server with all its workers."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, request)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
