"""Count what the service withstands: load, overload, kills, swaps, bad input, SIGTERM, a soak.

    make bench-faults        python -m benchmarks.faults [--only load,kills] [--short]

A real service process over a real MLflow server, on a core of its own. Every answer is compared
with exact arithmetic. Writes benchmarks/results/faults.json; exits with 1 if anything failed.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import Grammar, solve
from benchmarks.bad_inputs import damage_bodies, disturb, get_status, list_bad_inputs
from benchmarks.results_file import ROOT, machine, write
from benchmarks.serving_load import Loops, cores, encode_post, random_equations
from benchmarks.serving_process import RAISING, Process, fetch, registry, service
from registry import MODEL_NAME, PRODUCTION

CONNECTIONS = 64
DEADLINE_SECONDS = 5.0  # the service's default
BATCH = 256  # equations in a request of the overload
FOLLOW_SECONDS, LONGEST_FOLLOW_SECONDS = 3.0, 30.0  # the target, and when a swap counts as failed

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """Set how much of each trial runs."""

    load_seconds: float = 20.0
    overload_seconds: float = 10.0
    kills: int = 20
    swaps: int = 20
    lost_seconds: float = 10.0
    raising_seconds: float = 10.0
    damaged_bodies: int = 100_000
    terminations: int = 10
    soak_seconds: float = 300.0


SHORT = Size(1.0, 1.0, 1, 2, 1.0, 1.0, 200, 1, 2.0)


class Bench:
    """Hold the registry and the model that all trials use.

    Attributes:
        mlflow: the registry's process.
        uri: its address.
    """

    def __init__(self, mlflow: Process, uri: str, grammar: Grammar, size: Size, core: int):
        self.mlflow, self.uri, self.grammar, self.size, self.core = mlflow, uri, grammar, size, core

    @asynccontextmanager
    async def service(self, **settings: str) -> AsyncIterator[tuple[Process, str]]:
        """Run a service; yield its process and its address."""
        with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
            process, address = service(self.uri, Path(scratch), self.core, **settings)
            await asyncio.to_thread(process.start)
            try:
                yield process, address
            finally:
                await asyncio.to_thread(process.stop)

    def loops(self, address: str, *accepted: int, reconnect: bool = True) -> Loops:
        """Return loops of random equations that check every answer.

        Args:
            accepted: statuses that are correct besides 200.
        """
        url = f"{address}/predict"
        texts = random_equations(self.grammar, "+-", 1000, seed=3)
        texts = [text for text in texts if text != str(RAISING)]
        expected = [solve(self.grammar.parse(text)) for text in texts]
        requests = [encode_post(url, {"equation": text}) for text in texts]

        def check(index: int, status: int, body: bytes) -> bool:
            if status != 200:
                return status in accepted
            return json.loads(body)["predicted_answer"] == expected[index]

        return Loops(url, requests, check, reconnect)

    def batch_loops(self, address: str) -> Loops:
        """Return loops of requests with many equations, which may be rejected by a 503."""
        url = f"{address}/predict/batch"
        texts = random_equations(self.grammar, "+-", BATCH, seed=4)
        expected = [solve(self.grammar.parse(text)) for text in texts]

        def check(index: int, status: int, body: bytes) -> bool:
            return status == 503 or json.loads(body).get("predicted_answers") == expected

        return Loops(url, [encode_post(url, {"equations": texts})], check)

    async def promote(self, version: str, address: str) -> float:
        """Move the alias by hand; return the seconds until the service serves the version."""
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        await asyncio.to_thread(client.set_registered_model_alias, MODEL_NAME, PRODUCTION, version)
        started = time.perf_counter()
        while time.perf_counter() - started < LONGEST_FOLLOW_SECONDS:
            health = json.loads(await asyncio.to_thread(fetch, f"{address}/health"))
            if health["model_version"] == version:
                return time.perf_counter() - started
            await asyncio.sleep(0.02)
        raise UserError(f"version {version} was not served within {LONGEST_FOLLOW_SECONDS:g} s")


async def load(bench: Bench) -> Row:
    """Hold 64 connections."""
    async with bench.service() as (process, address):
        loops = await bench.loops(address).run(CONNECTIONS, bench.size.load_seconds)
        memory = process.memory_mb()
    return {
        "requests": loops.statuses.total(),
        "p99_ms": loops.percentile_ms(200),
        "memory_mb": memory,
        "failures": loops.failures,
    }


async def overload(bench: Bench) -> Row:
    """Ask for far more than the queue holds: every request is answered in time, or rejected."""
    async with bench.service(QUEUE_LIMIT="1024") as (_, address):
        batches, singles = bench.batch_loops(address), bench.loops(address, 503)
        seconds = bench.size.overload_seconds
        await asyncio.gather(batches.run(CONNECTIONS, seconds), singles.run(CONNECTIONS, seconds))
        after = await bench.loops(address).run(1, 1)
    rejected = batches.statuses[503] + singles.statuses[503]
    slowest = max(batches.percentile_ms(200), singles.percentile_ms(200))
    return {
        "answered": batches.statuses[200] + singles.statuses[200],
        "rejected": rejected,
        "answered_p99_ms": slowest,
        "rejected_p99_ms": max(batches.percentile_ms(503), singles.percentile_ms(503)),
        "alone_afterwards_p99_ms": after.percentile_ms(200),
        # Nothing rejected would not be an overload.
        "failures": batches.failures + singles.failures + after.failures + (rejected == 0)
        + (slowest > DEADLINE_SECONDS * 1e3),
    }  # fmt: skip


async def kills(bench: Bench) -> Row:
    """Kill the process under load and start it again."""
    seconds, answered = [], []
    async with bench.service() as (process, address):
        loops = bench.loops(address, 503)  # 503: it listens, and its model is not loaded yet
        task = asyncio.create_task(loops.run(CONNECTIONS))
        for _ in range(bench.size.kills):
            await asyncio.sleep(0.5)
            process.kill()
            seconds.append(await asyncio.to_thread(process.start))
            before = loops.statuses[200]
            await asyncio.sleep(0.5)
            answered.append(loops.statuses[200] > before)
        loops.stop()
        await task
    unexpected_cuts = max(0, loops.cut - bench.size.kills * CONNECTIONS)
    return {
        "kills": bench.size.kills,
        "restart_seconds": round(median(seconds), 2),
        "requests": loops.statuses.total(),
        "in_flight_when_killed": loops.cut,
        "failures": loops.wrong + unexpected_cuts + answered.count(False),
    }


async def swaps(bench: Bench) -> Row:
    """Move the alias between two versions under load."""
    seconds = []
    async with bench.service() as (_, address):
        loops = bench.loops(address)
        task = asyncio.create_task(loops.run(CONNECTIONS))
        for number in range(bench.size.swaps):
            seconds.append(await bench.promote("21"[number % 2], address))
        loops.stop()
        await task
        await bench.promote("1", address)
    return {
        "swaps": len(seconds),
        "median_seconds": round(median(seconds), 2),
        "longest_seconds": round(max(seconds), 2),
        "target_seconds": FOLLOW_SECONDS,
        "requests": loops.statuses.total(),
        "slowest_answer_ms": loops.percentile_ms(200, 1.0),
        "failures": loops.failures + (max(seconds) > FOLLOW_SECONDS),
    }


async def lost_registry(bench: Bench) -> Row:
    """Kill the registry under load, restart the service without it, and bring it back."""
    async with bench.service() as (process, address):
        loops = bench.loops(address)
        task = asyncio.create_task(loops.run(CONNECTIONS))
        await asyncio.sleep(bench.size.lost_seconds)
        bench.mlflow.kill()
        await asyncio.sleep(bench.size.lost_seconds)
        loops.stop()
        await task
        process.kill()
        restart = await asyncio.to_thread(process.start)
        source = json.loads(fetch(f"{address}/health"))["source"]
        after = await bench.loops(address).run(CONNECTIONS, 1)
        await asyncio.to_thread(bench.mlflow.start)
        followed = await bench.promote("2", address)
        await bench.promote("1", address)
    return {
        "requests": loops.statuses.total() + after.statuses.total(),
        "restart_without_registry_seconds": round(restart, 2),
        "followed_seconds": round(followed, 2),
        "failures": loops.failures + after.failures + (source != "last_known_good"),
    }


async def raising(bench: Bench) -> Row:
    """Ask an equation on which the model raises beside healthy ones: it alone gets the 500."""
    async with bench.service(MODEL_URI=f"models:/{MODEL_NAME}/3") as (_, address):
        url, seconds = f"{address}/predict", bench.size.raising_seconds
        request = encode_post(url, {"equation": str(RAISING)})
        culprit = Loops(url, [request], lambda index, status, body: status == 500)
        healthy = bench.loops(address)
        await asyncio.gather(healthy.run(CONNECTIONS - 1, seconds), culprit.run(1, seconds))
    raised = culprit.statuses[500]
    return {
        "raised": raised,
        "healthy": healthy.statuses.total(),
        "failures": healthy.failures + culprit.failures + (raised == 0),
    }


async def bad_inputs(bench: Bench) -> Row:
    """Send bad requests beside healthy ones; each gets a correct status, and nobody is harmed."""

    def check(index: int, status: int, body: bytes) -> bool:
        if status != 200:
            return status == 422
        answer = json.loads(body)  # the damage left a question
        return solve(bench.grammar.parse(answer["equation"])) == answer["predicted_answer"]

    unexpected = []
    async with bench.service() as (_, address):
        url, port = f"{address}/predict", urlsplit(address).port or 0
        healthy = bench.loops(address)
        task = asyncio.create_task(healthy.run(8))
        named = list_bad_inputs()
        for name, content, statuses in named:
            status = await get_status(port, content)
            if status not in statuses:
                unexpected.append(f"{name}: {status}")
        bodies = damage_bodies(bench.size.damaged_bodies, seed=1)
        damaged = Loops(url, [encode_post(url, body) for body in bodies], check)
        run = asyncio.create_task(damaged.run(8))
        while damaged.statuses.total() < len(bodies) and not run.done():
            await asyncio.sleep(0.1)
        damaged.stop()
        await run
        clients = await disturb(port)
        healthy.stop()
        await task
    return {
        "bad_inputs": len(named) + damaged.statuses.total() + clients,
        "unexpected": unexpected,
        "statuses_of_damaged_bodies": {str(k): n for k, n in sorted(damaged.statuses.items())},
        "healthy": healthy.statuses.total(),
        "failures": len(unexpected) + damaged.failures + healthy.failures,
    }


async def terminations(bench: Bench) -> Row:
    """Send SIGTERM to a service with 64 saturated connections: none is cut, it exits with 0."""
    seconds, total = [], Counter[str]()
    for _ in range(bench.size.terminations):
        async with bench.service() as (process, address):
            loops = bench.loops(address, reconnect=False)
            task = asyncio.create_task(loops.run(CONNECTIONS))
            await asyncio.sleep(1)
            started = time.perf_counter()
            status = await asyncio.to_thread(process.stop)
            seconds.append(time.perf_counter() - started)
            loops.stop()
            await task
        total.update(
            cut=loops.cut, wrong=loops.wrong, status=status != 0, requests=loops.statuses.total()
        )
    return {
        "terminations": bench.size.terminations,
        "connections": CONNECTIONS,
        "requests": total["requests"],
        "cut": total["cut"],
        "longest_seconds": round(max(seconds), 2),
        "failures": total["cut"] + total["wrong"] + total["status"],
    }


async def soak(bench: Bench) -> Row:
    """Compare the memory before and after a long load."""
    async with bench.service() as (process, address):
        warm = await bench.loops(address).run(CONNECTIONS, min(10.0, bench.size.soak_seconds))
        before = process.memory_mb()
        loops = bench.loops(address)
        await loops.run(CONNECTIONS, bench.size.soak_seconds)
        after = process.memory_mb()
    return {
        "seconds": bench.size.soak_seconds,
        "requests": loops.statuses.total(),
        "memory_before_mb": before,
        "memory_after_mb": after,
        "failures": loops.failures + warm.failures,
    }


TRIALS: dict[str, Callable[[Bench], Coroutine[Any, Any, Row]]] = {
    trial.__name__: trial
    for trial in (
        *(load, overload, kills, swaps, lost_registry, raising, bad_inputs, terminations, soak),
    )
}


def run(names: list[str], model: Path, size: Size) -> dict[str, Row]:
    """Run trials in turn; this process and the registry stay on the core for load."""
    server_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    grammar = artifacts.load_config(model).get_grammar()
    rows: dict[str, Row] = {}
    with registry(model, load_core) as (mlflow, uri):
        bench = Bench(mlflow, uri, grammar, size, server_core)
        for name in names:
            rows[name] = asyncio.run(TRIALS[name](bench))
            rest = {key: value for key, value in rows[name].items() if key != "failures"}
            print(f"{name:14}{rows[name]['failures']:6d} failures  {rest}", flush=True)
    return rows


def main() -> None:
    """Run the trials and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--only", default=",".join(TRIALS), help="names with commas between")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--result", default="faults", help="name of the result; empty for none")
    options = parser.parse_args()
    with cli_errors():
        names = options.only.split(",")
        if unknown := sorted(set(names) - set(TRIALS)):
            raise UserError(f"there is no trial {unknown[0]!r}", f"choose from {', '.join(TRIALS)}")
        whole_machine = machine()
        rows = run(names, options.model.resolve(), SHORT if options.short else Size())
        failures = sum(row["failures"] for row in rows.values())
        if options.result and not options.short:
            figures = {"machine": whole_machine, "failures": failures, "trials": rows}
            print(f"wrote {write(options.result, figures)}")
        if failures:
            raise UserError(f"{failures} failures (see above)")


if __name__ == "__main__":
    main()
