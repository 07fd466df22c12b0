"""Count what the service withstands: load, overload, kills, swaps, bad input, SIGTERM, a soak.

    make bench-faults        python -m benchmarks.faults [--only load,kills] [--short]

A real service process over a real MLflow server, on a core of its own. Every answer is compared
with exact arithmetic. Writes benchmarks/results/faults.json; exits with 1 if anything failed.
"""

import argparse
import json
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mlflow import MlflowClient

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Grammar, solve
from benchmarks.bad_inputs import CLOSED, GOOD, PATH, damage_bodies, list_bad_inputs
from benchmarks.results_file import ROOT, machine, write
from benchmarks.serving_load import Loops, cores, encode_post, random_equations
from benchmarks.serving_process import RAISING, Process, ServiceProcess, registry
from registry import MODEL_NAME, PRODUCTION
from scripts.quickstart import request

CONNECTIONS = 64
DEADLINE_SECONDS = 5.0  # the service's default
BATCH = 256  # equations in a request of the overload
FOLLOW_SECONDS, LONGEST_FOLLOW_SECONDS = 3.0, 30.0  # the target, and when a swap counts as failed

Row = dict[str, Any]


class Bench(NamedTuple):
    """Hold the registry, its address and the grammar, and how much of each trial runs.

    Attributes:
        times: how often it kills, swaps or terminates.
    """

    mlflow: Process
    uri: str
    grammar: Grammar
    seconds: float = 10.0
    times: int = 20
    damaged_bodies: int = 100_000
    soak_seconds: float = 300.0


def row(failures: int, **figures: Any) -> Row:
    """Return a trial's result with its figures rounded."""
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}
    return {**rounded, "failures": failures}


def is_right(expected: object, accepted: tuple[int, ...], status: int, body: bytes) -> bool:
    """Return whether one answer or a list of answers is exact, or another status is accepted."""
    if status != 200:
        return status in accepted
    answer = json.loads(body)
    return bool(expected == (answer.get("predicted_answers") or answer.get("predicted_answer")))


class Service(ServiceProcess):
    """Run the service; make load for it, and lead it to another version."""

    def __init__(self, bench: Bench, **settings: str):
        self.uri, self.grammar = bench.uri, bench.grammar
        self.folder = tempfile.TemporaryDirectory(prefix="arithmetic-lm-")
        super().__init__(bench.uri, Path(self.folder.name), cores()[0], **settings)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.folder.cleanup()

    def loops(self, *accepted: int, reconnect: bool = True) -> Loops:
        """Return loops of random equations; these statuses are correct besides 200."""
        texts = random_equations(self.grammar, "+-", 1000, seed=3)
        requests = [
            (encode_post(PATH, {"equation": text}), partial(is_right, answer, accepted))
            for text, answer in zip(texts, self.solve(texts), strict=True)
            if text != str(RAISING)
        ]
        return Loops(self.port, cycle(requests), reconnect)

    def batch_loops(self) -> Loops:
        """Return loops of requests with many equations, which may be rejected by a 503."""
        texts = random_equations(self.grammar, "+-", BATCH, seed=4)
        content = encode_post(f"{PATH}/batch", {"equations": texts})
        return Loops(self.port, cycle([(content, partial(is_right, self.solve(texts), (503,)))]))

    def solve(self, texts: list[str]) -> list[str]:
        """Return the exact answers."""
        return [solve(self.grammar.parse(text)) for text in texts]

    def promote(self, version: str) -> float:
        """Move the alias by hand; return the seconds until the service serves the version."""
        MlflowClient(self.uri).set_registered_model_alias(MODEL_NAME, PRODUCTION, version)
        started = time.perf_counter()
        while time.perf_counter() - started < LONGEST_FOLLOW_SECONDS:
            if request(f"{self.address}/health")["model_version"] == version:
                return time.perf_counter() - started
            time.sleep(0.02)
        raise UserError(f"version {version} was not served within {LONGEST_FOLLOW_SECONDS:g} s")


def load(bench: Bench, seconds: float = 0.0) -> Row:
    """Hold 64 connections; compare the memory before and after."""
    with Service(bench) as service:
        warm = service.loops().run(CONNECTIONS, bench.seconds)
        before = service.memory_mb()
        loops = service.loops().run(CONNECTIONS, seconds or bench.seconds)
        return row(
            warm.failures + loops.failures,
            requests=loops.statuses.total(),
            p99_ms=loops.percentile_ms(200),
            memory_before_mb=before,
            memory_after_mb=service.memory_mb(),
        )


def soak(bench: Bench) -> Row:
    """Do the same for minutes."""
    return load(bench, bench.soak_seconds)


def overload(bench: Bench) -> Row:
    """Ask for far more than the queue holds: every request is answered in time, or rejected."""
    with Service(bench, QUEUE_LIMIT="1024") as service:
        batches, singles = service.batch_loops(), service.loops(503)
        with batches.running(CONNECTIONS):
            singles.run(CONNECTIONS, bench.seconds)
        after = service.loops().run(1, 1)
    answered, rejected = (batches.statuses[n] + singles.statuses[n] for n in (200, 503))
    slowest = max(batches.percentile_ms(200), singles.percentile_ms(200))
    failures = batches.failures + singles.failures + after.failures
    failures += (rejected == 0) + (slowest > DEADLINE_SECONDS * 1e3)  # else it was no overload
    return row(failures, answered=answered, rejected=rejected, answered_p99_ms=slowest)


def kills(bench: Bench) -> Row:
    """Kill the process under load and start it again."""
    seconds, failures = [], 0
    with Service(bench) as service:
        loops = service.loops(503)  # 503: it listens, and its model is not loaded yet
        with loops.running(CONNECTIONS):
            time.sleep(0.5)
            for _ in range(bench.times):
                # Connections cut before it is ready do not count: the kill cuts them.
                service.kill()
                seconds.append(service.start())
                answered, cut = loops.statuses[200], loops.cut
                time.sleep(0.5)
                failures += loops.cut - cut + (loops.statuses[200] == answered)
    failures += loops.wrong + loops.unanswered
    requests = loops.statuses.total()
    return row(failures, kills=bench.times, restart_seconds=median(seconds), requests=requests)


def swaps(bench: Bench) -> Row:
    """Move the alias between two versions under load."""
    with Service(bench) as service:
        loops = service.loops()
        with loops.running(CONNECTIONS):
            seconds = [service.promote("21"[number % 2]) for number in range(bench.times)]
        service.promote("1")
    return row(
        loops.failures + (max(seconds) > FOLLOW_SECONDS),
        swaps=bench.times,
        median_seconds=median(seconds),
        longest_seconds=max(seconds),
        requests=loops.statuses.total(),
    )


def lost_registry(bench: Bench) -> Row:
    """Kill the registry under load, restart the service without it, and bring it back."""
    with Service(bench) as service:
        loops = service.loops()
        with loops.running(CONNECTIONS):
            time.sleep(bench.seconds)
            bench.mlflow.kill()
            time.sleep(bench.seconds)
        service.kill()
        restart = service.start()
        source = request(f"{service.address}/health")["source"]
        after = service.loops().run(CONNECTIONS, 1)
        bench.mlflow.start()
        followed = service.promote("2")
        service.promote("1")
    return row(
        loops.failures + after.failures + (source != "last_known_good"),
        requests=loops.statuses.total() + after.statuses.total(),
        restart_without_registry_seconds=restart,
        followed_seconds=followed,
    )


def raising(bench: Bench) -> Row:
    """Ask an equation on which the model raises beside healthy ones: it alone gets the 500."""
    with Service(bench, MODEL_URI=f"models:/{MODEL_NAME}/3") as service:
        content = encode_post(PATH, {"equation": str(RAISING)})
        culprit = Loops(service.port, cycle([(content, lambda status, body: status == 500)]))
        healthy = service.loops()
        with healthy.running(CONNECTIONS - 1):
            culprit.run(1, bench.seconds)
    raised = culprit.statuses[500]
    failures = healthy.failures + culprit.failures + (raised == 0)
    return row(failures, raised=raised, healthy=healthy.statuses.total())


def bad_inputs(bench: Bench) -> Row:
    """Send bad requests beside healthy ones; each gets a correct status, and nobody is harmed."""

    def check(status: int, body: bytes) -> bool:
        if status != 200:
            return status == 422
        answer = json.loads(body)  # the damage left a question
        return solve(bench.grammar.parse(answer["equation"])) == answer["predicted_answer"]

    unexpected, named = [], list(list_bad_inputs())
    with Service(bench) as service:
        healthy = service.loops()
        with healthy.running(8):
            for name, content, statuses in named:
                probe = Loops(service.port, iter([(content, lambda *_: True)]), reconnect=False)
                status = next(iter(probe.run(1).statuses), None if probe.unanswered else CLOSED)
                if status not in statuses:
                    unexpected.append(f"{name}: {status}")
            bodies = damage_bodies(bench.damaged_bodies, seed=1)
            damaged = Loops(service.port, ((encode_post(PATH, body), check) for body in bodies))
            damaged.run(8)
            disturb(service.port)
    return row(
        len(unexpected) + damaged.failures + healthy.failures,
        bad_inputs=len(named) + damaged.statuses.total(),
        unexpected=unexpected,
        healthy=healthy.statuses.total(),
    )


def disturb(port: int) -> None:
    """Stop in the middle of requests, or leave before the answers."""
    content = encode_post(PATH, GOOD)
    parts = [content[:length] for length in range(1, len(content), 7)]
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in parts]
    for client, part in zip(waiting, parts, strict=True):
        client.sendall(part)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(content * 5)
    time.sleep(1)
    for client in waiting:
        client.close()


def terminations(bench: Bench) -> Row:
    """Send SIGTERM to a service with 64 saturated connections: none is cut, it exits with 0."""
    seconds, total = [], Counter[str]()
    for _ in range(bench.times):
        with Service(bench) as service:
            loops = service.loops(reconnect=False)
            with loops.running(CONNECTIONS):
                time.sleep(1)
                started = time.perf_counter()
                status = service.stop()
                seconds.append(time.perf_counter() - started)
        total.update(requests=loops.statuses.total(), cut=loops.cut, status=status != 0)
        total.update(failures=loops.wrong + loops.cut + loops.unanswered + (status != 0))
    return row(terminations=bench.times, longest_seconds=max(seconds), **total)


TRIALS: dict[str, Callable[[Bench], Row]] = {
    trial.__name__: trial
    for trial in (
        *(load, overload, kills, swaps, lost_registry, raising, bad_inputs, terminations, soak),
    )
}


def main() -> None:
    """Run the trials and write the result; this process and the registry stay on the other core."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--only", default=",".join(TRIALS), help="names with commas between")
    parser.add_argument("--short", action="store_true", help="seconds, and no result: a test")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    options = parser.parse_args()
    with cli_errors():
        names = options.only.split(",")
        if unknown := sorted(set(names) - set(TRIALS)):
            raise UserError(f"there is no trial {unknown[0]!r}", f"choose from {', '.join(TRIALS)}")
        whole_machine, model, rows = machine(), options.model.resolve(), {}
        os.sched_setaffinity(0, {cores()[1]})
        with registry(model) as (mlflow, uri):
            bench = Bench(mlflow, uri, artifacts.load_config(model).get_grammar())
            if options.short:
                bench = bench._replace(seconds=1.0, times=2, damaged_bodies=200, soak_seconds=2.0)
            for name in names:
                rows[name] = TRIALS[name](bench)
                print(f"{name:14}{rows[name]['failures']:6d} failures  {rows[name]}", flush=True)
        failures = sum(row["failures"] for row in rows.values())
        if not options.short:
            figures = {"machine": whole_machine, "failures": failures, "trials": rows}
            print(f"wrote {write('faults', figures)}")
        if failures:
            raise UserError(f"{failures} failures (see above)")


if __name__ == "__main__":
    main()
