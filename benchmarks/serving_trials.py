"""The service under load while things go wrong: each function is one trial and returns its row.

A row counts what was tried and `failures`: answers that are wrong or of a status that is not right
there, connections cut that should not be, a service that does not come back. Zero is expected.
"""

import asyncio
import json
import resource
import statistics
import time
from itertools import islice
from typing import Any

import httpx

from arithmetic.errors import Problem
from benchmarks import serving_culprit
from benchmarks.serving_client import Loops, post
from benchmarks.serving_environment import memory, ready
from benchmarks.serving_faults import GRACE_SECONDS, Checked, Service, service, wire
from benchmarks.serving_inputs import handmade, random_ones, rude_clients, status_of
from registry import ALIAS, MODEL

CONNECTIONS = 64
# An alias must be followed within this; the service looks every second or two.
FOLLOW_SECONDS = 30.0

Row = dict[str, Any]


async def load(uri: str, seconds: float) -> Row:
    """64 connections, every answer checked."""
    async with service(uri) as running:
        checked = Checked(running.url)
        await checked.loops.run(CONNECTIONS, seconds)
    return {
        "requests": checked.tally.answers,
        "requests_per_second": round(checked.tally.answers / seconds),
        "p99_ms": checked.p99(200),
        "failures": checked.failures,
    }


async def overload(uri: str, seconds: float, connections: int = 2000) -> Row:
    """More divisions at once than the queue holds: some are refused at once, the rest answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * connections + 200)), hard))
    settings = {"MODEL_URI": f"models:/{MODEL}/2", "QUEUE_LIMIT": "1024"}
    async with service(uri, **settings) as running:
        checked = Checked(running.url, "/")
        await checked.loops.run(connections, seconds)
        await asyncio.sleep(1)
        after = Checked(running.url, "/")
        await after.loops.run(1, 1)
    statuses = checked.tally.statuses
    answered, shed = statuses.get(200, 0), statuses.get(503, 0)
    other = checked.tally.answers - answered - shed
    return {
        "connections": connections,
        "answered": answered,
        "shed": shed,
        "answered_p99_ms": checked.p99(200),
        "shed_p99_ms": checked.p99(503),
        "alone_afterwards_p99_ms": after.p99(200),
        # Nothing shed would be no overload; a slow answer is a queue that grew.
        "failures": other + checked.wrong + checked.tally.cut + after.failures
        + (shed == 0) + (checked.p99(200) > 5000),
    }  # fmt: skip


async def kills(uri: str, count: int) -> Row:
    """`kill -9` under load and start again: it comes back, and nothing it ever says is wrong."""
    seconds, unavailable = [], 0
    async with service(uri) as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
        for _ in range(count):
            # 503 is what a service says that has just started and has no model yet. Since it was
            # ready, nobody is told that; what was on its way then has 50 ms to arrive.
            await asyncio.sleep(0.05)
            refused = checked.tally.statuses.get(503, 0)
            await asyncio.sleep(0.45)
            unavailable += checked.tally.statuses.get(503, 0) - refused
            running.kill()
            seconds.append(await asyncio.to_thread(running.start))
        before = checked.tally.statuses.get(200, 0)
        await asyncio.sleep(1)
        served_on = checked.tally.statuses.get(200, 0) > before
        checked.loops.stop()
        await loops
    lost = checked.tally.cut
    statuses = checked.tally.statuses
    other = unavailable + checked.tally.answers - statuses.get(200, 0) - statuses.get(503, 0)
    return {
        "kills": count,
        "restart_seconds": round(statistics.median(seconds), 2),
        "requests": checked.tally.answers,
        # Those in flight when the process was killed: nobody could have answered them.
        "cut_by_kill": lost,
        "unavailable_once_ready": unavailable,
        "failures": checked.wrong + other + (not served_on) + max(0, lost - count * CONNECTIONS),
    }


def set_alias(uri: str, version: str) -> None:
    """Make a version Production, as MLflow's own pages do."""
    httpx.post(
        f"{uri}/api/2.0/mlflow/registered-models/alias",
        json={"name": MODEL, "alias": ALIAS, "version": version},
        timeout=30,
    ).raise_for_status()


async def swaps(uri: str, count: int) -> Row:
    """Promotions and rollbacks between two versions under load."""
    slow, seconds = 0, []
    async with service(uri) as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
        for number in range(count):
            began = time.perf_counter()
            if not await _follows(uri, running, "21"[number % 2]):
                slow += 1
                break
            seconds.append(time.perf_counter() - began)
        checked.loops.stop()
        await loops
        await asyncio.to_thread(set_alias, uri, "1")
    strangers = sum(n for version, n in checked.versions.items() if version not in ("1", "2"))
    return {
        "swaps": len(seconds),
        "median_seconds": round(statistics.median(seconds), 2) if seconds else None,
        "longest_seconds": round(max(seconds), 2) if seconds else None,
        "requests": checked.tally.answers,
        "slowest_answer_ms": checked.slowest(200),
        "answers_by_version": dict(sorted(checked.versions.items())),
        "failures": checked.failures + slow + strangers,
    }


async def lost_registry(uri: str, seconds: float) -> Row:
    """The registry goes away under load; the service goes on, also through a restart."""
    failures = []
    async with wire(uri) as way, service(way.uri) as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
        await asyncio.sleep(seconds)
        way.cut()
        await asyncio.sleep(max(seconds, 5))  # longer than the service's own looking around
        checked.loops.stop()
        await loops
        running.kill()
        try:
            restart = await asyncio.to_thread(running.start)
        except Problem:
            return {"requests": checked.tally.answers, "failures": checked.failures + 1}
        after = Checked(running.url)
        await after.loops.run(CONNECTIONS, 1)
        await way.join()
        if not await _follows(uri, running, "2"):
            failures.append("the registry came back and was not followed")
        await asyncio.to_thread(set_alias, uri, "1")
    return {
        "requests": checked.tally.answers + after.tally.answers,
        "restart_without_registry_seconds": round(restart, 2),
        "failures": checked.failures + after.failures + len(failures),
    }


async def _follows(uri: str, running: Service, version: str) -> bool:
    """Make a version Production and wait until it is served."""
    await asyncio.to_thread(set_alias, uri, version)
    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=30) as client:
        while time.perf_counter() - began < FOLLOW_SECONDS:
            health = (await client.get(f"{running.address}/health")).json()
            if health["model_version"] == version:
                return True
            await asyncio.sleep(0.05)
    return False


async def raising(uri: str, seconds: float) -> Row:
    """An equation on which the inference raises, among healthy ones: it alone gets the 500."""
    version = await asyncio.to_thread(serving_culprit.registered, uri)
    async with service(uri, MODEL_URI=f"models:/{MODEL}/{version}") as running:
        checked = Checked(running.url)
        body = json.dumps({"equation": str(serving_culprit.CULPRIT)}).encode()
        culprit = Loops(running.url, [post(running.url, body)])
        await asyncio.gather(checked.loops.run(CONNECTIONS - 1, seconds), culprit.run(1, seconds))
    raised = culprit.tally.statuses.get(500, 0)
    return {
        "raising": raised,
        "healthy_neighbours": checked.tally.answers,
        # Nothing raised would prove nothing.
        "failures": checked.failures + culprit.tally.failures - raised + (raised == 0),
    }


async def bad_inputs(uri: str, count: int) -> Row:
    """Bad requests beside healthy ones: the right status each, and no neighbour is harmed."""
    unexpected: list[str] = []
    async with service(uri, REQUEST_SECONDS="2") as running:
        checked = Checked(running.url)
        loops = asyncio.create_task(checked.loops.run(8))
        made = handmade()
        for bad in [*made, *islice(random_ones(1), max(0, count - len(made)))]:
            status = await status_of(running.port, bad)
            if status not in bad.right:
                unexpected.append(f"{bad.name}: {status}")
        rude = await rude_clients(running.port)
        checked.loops.stop()
        await loops
        alive = ready(running.address)
    return {
        "bad_inputs": max(count, len(made)) + rude,
        "unexpected": unexpected[:20],
        "healthy_requests": checked.tally.answers,
        "failures": len(unexpected) + checked.failures + (not alive),
    }


async def terminations(uri: str, count: int) -> Row:
    """SIGTERM to 64 saturated keep-alive connections: nothing is cut, exit 0 in time."""
    cut, statuses, exits, seconds, answers = 0, 0, [], [], 0
    for _ in range(count):
        async with service(uri) as running:
            checked = Checked(running.url, reconnect=False)
            loops = asyncio.create_task(checked.loops.run(CONNECTIONS))
            await asyncio.sleep(1)
            began = time.perf_counter()
            exits.append(await asyncio.to_thread(running.terminate))
            seconds.append(time.perf_counter() - began)
            checked.loops.stop()
            await asyncio.wait_for(loops, GRACE_SECONDS)
        tally = checked.tally
        cut += tally.cut
        answers += tally.answers
        statuses += tally.answers - tally.statuses.get(200, 0) + checked.wrong
    return {
        "terminations": count,
        "connections": CONNECTIONS,
        "requests": answers,
        "cut": cut,
        "longest_seconds": round(max(seconds), 2),
        "failures": cut + statuses + sum(status != 0 for status in exits),
    }


async def soak(uri: str, seconds: float, warm_seconds: float) -> Row:
    """Memory after a soak against before; every answer checked."""
    async with service(uri) as running:
        warm = Checked(running.url)
        await warm.loops.run(CONNECTIONS, warm_seconds)
        before = memory(running.pid)
        checked = Checked(running.url)
        await checked.loops.run(CONNECTIONS, seconds)
        after = memory(running.pid)
    return {
        "seconds": seconds,
        "requests": checked.tally.answers,
        "memory_before_mb": round(before, 1),
        "memory_after_mb": round(after, 1),
        "p99_ms": checked.p99(200),
        "failures": checked.failures,
    }
