"""Count what the service withstands: load, overload, kills, swaps, bad input, SIGTERM, a soak.

    make bench-faults        python -m benchmarks.faults [--only load kills] [--short]

A real service process over a real MLflow server, on a core of its own. Every answer is compared
with exact arithmetic. Writes benchmarks/results/faults.json; exits with 1 if anything failed.
"""

import argparse
import json
import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mlflow import MlflowClient

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Grammar, solve
from benchmarks.results_file import ROOT, machine, write
from benchmarks.serving_load import Loops, cores, encode_post, is_right, random_equations
from benchmarks.serving_process import RAISING, memory_mb, pinned_service, registry
from registry import MODEL_NAME, PRODUCTION
from scripts.server_process import ServerProcess, request, wait_for_version

PATH = "/predict"
CONNECTIONS = 64
DEADLINE_SECONDS = 5.0  # the service's default
BATCH = 256  # equations in a request of the overload
FOLLOW_SECONDS = 3.0  # at most, until a service serves a promoted version

Row = dict[str, Any]


class Bench(NamedTuple):
    """Hold what all trials need, and how much of each runs.

    Attributes:
        folder: for the services' logs and models.
        times: how often it kills, swaps or terminates.
    """

    mlflow: ServerProcess
    folder: Path
    grammar: Grammar
    seconds: float = 10.0
    times: int = 20
    damaged_bodies: int = 100_000
    soak_seconds: float = 300.0

    def service(self, **settings: str) -> ServerProcess:
        """Return a service on its core."""
        return pinned_service(self.mlflow.address, self.folder, cores()[0], **settings)

    def loops(self, service: ServerProcess, *accepted: int, reconnect: bool = True) -> Loops:
        """Return loops of random equations; these statuses are correct besides 200."""
        requests = [
            (encode_post(PATH, {"equation": text}), partial(is_right, self.solve(text), accepted))
            for text in random_equations(self.grammar, 1000)
            if text != str(RAISING)
        ]
        return Loops(service.port, cycle(requests), reconnect)

    def solve(self, text: str) -> str:
        """Return the exact answer."""
        return solve(self.grammar.parse(text))

    def promote(self, service: ServerProcess, version: str) -> float:
        """Move the alias by hand; return the seconds until the service serves the version."""
        client = MlflowClient(self.mlflow.address)
        client.set_registered_model_alias(MODEL_NAME, PRODUCTION, version)
        return wait_for_version(service.address, version)


def load(bench: Bench, seconds: float = 0.0) -> Row:
    """Hold 64 connections; compare the memory before and after."""
    with bench.service() as service:
        warm = bench.loops(service).run(CONNECTIONS, bench.seconds)
        before = memory_mb(service)
        loops = bench.loops(service).run(CONNECTIONS, seconds or bench.seconds)
        return {
            "requests": loops.answers,
            "p99_ms": loops.p99_ms,
            "memory_before_mb": before,
            "memory_after_mb": memory_mb(service),
            "failures": warm.failures + loops.failures,
        }


def soak(bench: Bench) -> Row:
    """Do the same for minutes."""
    return load(bench, bench.soak_seconds)


def overload(bench: Bench) -> Row:
    """Ask for far more than the queue holds: every request is answered in time, or rejected."""
    texts = random_equations(bench.grammar, BATCH)
    content = encode_post(f"{PATH}/batch", {"equations": texts})
    check = partial(is_right, [bench.solve(text) for text in texts], (503,))
    with bench.service(QUEUE_LIMIT="1024") as service:
        batches = Loops(service.port, cycle([(content, check)]))
        singles = bench.loops(service, 503)
        with batches.running(CONNECTIONS):
            singles.run(CONNECTIONS, bench.seconds)
        after = bench.loops(service).run(1, 1)
    answered, rejected = (batches.counts[status] + singles.counts[status] for status in (200, 503))
    p99_ms = max(batches.p99_ms, singles.p99_ms)
    failures = batches.failures + singles.failures + after.failures
    failures += (rejected == 0) + (p99_ms > DEADLINE_SECONDS * 1e3)  # else it was no overload
    row = {"answered": answered, "rejected": rejected, "answered_p99_ms": p99_ms}
    return {**row, "failures": failures}


def kills(bench: Bench) -> Row:
    """Kill the process under load and start it again."""
    seconds, failures = [], 0
    with bench.service() as service:
        loops = bench.loops(service, 503)  # 503: it listens, and its model is not loaded yet
        with loops.running(CONNECTIONS):
            for _ in range(bench.times):
                time.sleep(0.5)
                service.stop(signal.SIGKILL)
                seconds.append(service.start())
                # What was cut before it is ready does not count: the kill cuts that.
                answered, cut = loops.counts[200], loops.counts["cut"]
                time.sleep(0.5)
                failures += loops.counts["cut"] - cut + (loops.counts[200] == answered)
    return {
        "kills": bench.times,
        "restart_seconds": median(seconds),
        "requests": loops.answers,
        "failures": failures + loops.counts["wrong"] + loops.counts["unanswered"],
    }


def swaps(bench: Bench) -> Row:
    """Move the alias between two versions under load."""
    with bench.service() as service:
        loops = bench.loops(service)
        with loops.running(CONNECTIONS):
            seconds = [bench.promote(service, "21"[number % 2]) for number in range(bench.times)]
        bench.promote(service, "1")
    return {
        "swaps": bench.times,
        "median_seconds": median(seconds),
        "longest_seconds": max(seconds),
        "requests": loops.answers,
        "failures": loops.failures + (max(seconds) > FOLLOW_SECONDS),
    }


def lost_registry(bench: Bench) -> Row:
    """Kill the registry under load, restart the service without it, and bring it back."""
    with bench.service() as service:
        loops = bench.loops(service)
        with loops.running(CONNECTIONS):
            time.sleep(bench.seconds)
            bench.mlflow.stop(signal.SIGKILL)
            time.sleep(bench.seconds)
        service.stop(signal.SIGKILL)
        restart = service.start()
        source = request(f"{service.address}/health")["source"]
        after = bench.loops(service).run(CONNECTIONS, 1)
        bench.mlflow.start()
        followed = bench.promote(service, "2")
        bench.promote(service, "1")
    return {
        "requests": loops.answers + after.answers,
        "restart_without_registry_seconds": restart,
        "followed_seconds": followed,
        "failures": loops.failures + after.failures + (source != "last_known_good"),
    }


def raising(bench: Bench) -> Row:
    """Ask an equation on which the model raises beside healthy ones: it alone gets the 500."""
    content = encode_post(PATH, {"equation": str(RAISING)})
    with bench.service(MODEL_URI=f"models:/{MODEL_NAME}/3") as service:
        culprit = Loops(service.port, cycle([(content, lambda status, _: status == 500)]))
        healthy = bench.loops(service)
        with healthy.running(CONNECTIONS - 1):
            culprit.run(1, bench.seconds)
    raised = culprit.counts[500]
    failures = healthy.failures + culprit.failures + (raised == 0)
    return {"raised": raised, "healthy": healthy.answers, "failures": failures}


def bad_inputs(bench: Bench) -> Row:
    """Send damaged bodies beside healthy ones: each gets a correct status, and nobody is harmed."""

    def check(status: int, body: bytes) -> bool:
        if status != 200:
            return status == 422
        answer = json.loads(body)  # the damage left a question
        return bench.solve(answer["equation"]) == str(answer["predicted_answer"])

    with bench.service() as service:
        healthy = bench.loops(service)
        damaged = Loops(service.port, ((encode_post(PATH, body), check) for body in damage_body(1)))
        with healthy.running(8), damaged.running(8):
            while damaged.answers < bench.damaged_bodies:
                time.sleep(0.1)
            disturb(service.port)
    failures = damaged.failures + healthy.failures
    return {"bad_inputs": damaged.answers, "healthy": healthy.answers, "failures": failures}


def damage_body(seed: int) -> Iterator[bytes]:
    """Yield a good body with bytes changed, dropped or doubled, without end; some stay good."""
    rng = random.Random(seed)
    while True:
        body = bytearray(b'{"equation": "23+45=", "steps": false}')
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(body))
            doubled = body[place : place + 1] + body[place : place + rng.randint(1, 8)]
            body[place : place + 1] = rng.choice([b"", rng.randbytes(1), doubled])
        yield bytes(body)


def disturb(port: int) -> None:
    """Leave in the middle of requests, and before the answers."""
    content = encode_post(PATH, {"equation": "1+1="})
    for part in [content[:length] for length in range(1, len(content), 7)] + [content * 5] * 20:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(part)


def terminations(bench: Bench) -> Row:
    """Send SIGTERM to a service with 64 saturated connections: none is cut, it exits with 0."""
    seconds, total = [], Counter[str]()
    for _ in range(bench.times):
        with bench.service() as service:
            loops = bench.loops(service, reconnect=False)
            with loops.running(CONNECTIONS):
                time.sleep(1)
                started = time.perf_counter()
                is_error = service.stop() != 0
                seconds.append(time.perf_counter() - started)
        total.update(requests=loops.answers, cut=loops.counts["cut"], status=is_error)
        total.update(failures=loops.failures + is_error)
    return {"terminations": bench.times, "longest_seconds": max(seconds), **total}


TRIALS: dict[str, Callable[[Bench], Row]] = {
    trial.__name__: trial
    for trial in (
        *(load, overload, kills, swaps, lost_registry, raising, bad_inputs, terminations, soak),
    )
}


def main() -> None:
    """Run the trials and write the result; this process and the registry stay on the other core."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=[*TRIALS])
    parser.add_argument("--short", action="store_true", help="seconds, and no result: a test")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    options = parser.parse_args()
    with cli_errors(), tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as folder:
        whole_machine, model, rows = machine(), options.model.resolve(), {}
        os.sched_setaffinity(0, {cores()[1]})
        with registry(model) as mlflow:
            grammar = artifacts.load_config(model).get_grammar()
            bench = Bench(mlflow, Path(folder), grammar)
            if options.short:
                bench = bench._replace(seconds=1.0, times=2, damaged_bodies=200, soak_seconds=2.0)
            for name in options.only:
                row = TRIALS[name](bench)
                rows[name] = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
                print(f"{name:14}{row['failures']:6d} failures  {rows[name]}", flush=True)
        failures = sum(row["failures"] for row in rows.values())
        if not options.short:
            figures = {"machine": whole_machine, "failures": failures, "trials": rows}
            print(f"wrote {write('faults', figures)}")
        if failures:
            raise UserError(f"{failures} failures (see above)")


if __name__ == "__main__":
    main()
