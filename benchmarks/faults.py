"""make bench-faults: what the service withstands, counted.

A real service process over a real MLflow server, on a core of its own. Load is held, refused when
it is too much, kept through kills, promotions, bad input and the end of the process; then memory
is compared before and after a soak. Every answer is compared with exact arithmetic. Ends with
status 1 if anything failed.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from arithmetic.errors import Problem, reported
from benchmarks import serving_faults
from benchmarks import serving_trials as trials
from benchmarks.results_file import machine, write
from benchmarks.serving_load import cores
from benchmarks.serving_peers import ROOT
from benchmarks.serving_store import REGISTRY_HELP, registry
from benchmarks.serving_trials import Row


@dataclass(frozen=True)
class Size:
    """How much of each trial."""

    load_seconds: float = 20.0
    overload_seconds: float = 10.0
    kills: int = 20
    swaps: int = 20
    lost_seconds: float = 10.0
    raising_seconds: float = 10.0
    bad_inputs: int = 2000
    terminations: int = 10
    soak_seconds: float = 300.0
    soak_warm_seconds: float = 10.0


# Seconds instead of minutes: does every trial work?
SHORT = Size(1.0, 2.0, 1, 2, 1.0, 1.0, 100, 1, 3.0, 1.0)

Trial = Callable[[str, Size], Coroutine[None, None, Row]]
TRIALS: dict[str, Trial] = {
    "load": lambda uri, size: trials.load(uri, size.load_seconds),
    "overload": lambda uri, size: trials.overload(uri, size.overload_seconds),
    "kills": lambda uri, size: trials.kills(uri, size.kills),
    "swaps": lambda uri, size: trials.swaps(uri, size.swaps),
    "lost registry": lambda uri, size: trials.lost_registry(uri, size.lost_seconds),
    "raising": lambda uri, size: trials.raising(uri, size.raising_seconds),
    "bad inputs": lambda uri, size: trials.bad_inputs(uri, size.bad_inputs),
    "terminations": lambda uri, size: trials.terminations(uri, size.terminations),
    "soak": lambda uri, size: trials.soak(uri, size.soak_seconds, size.soak_warm_seconds),
}


def line(name: str, row: Row) -> str:
    """One line of the table."""
    rest = ", ".join(
        f"{key.replace('_', ' ')} {value:,}"
        if isinstance(value, int | float)
        else f"{key.replace('_', ' ')} {value}"
        for key, value in row.items()
        if key != "failures" and value not in ([], None)
    )
    return f"{name:14}{row['failures']:9d}  {rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(TRIALS), help="names, with commas between")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--result", default="faults", help="name of the result; empty: none")
    parser.add_argument("--registry", default="", help=REGISTRY_HELP)
    given = parser.parse_args()
    with reported():
        names = [name for name in given.only.split(",") if name]
        unknown = sorted(set(names) - set(TRIALS))
        if unknown:
            raise Problem(f"no trial is called {unknown[0]!r}; there are {', '.join(TRIALS)}")
        rows: dict[str, Row] = {}
        started = time.monotonic()
        measured_on = machine()
        server_core, load_core = serving_faults.CORE, cores()[1]
        # The service by its own `taskset`; all else, this process and the MLflow server, here.
        os.sched_setaffinity(0, {load_core})
        with registry(given.registry) as uri:
            print(f"{'trial':14}{'failures':>9}", flush=True)
            for name in names:
                rows[name] = asyncio.run(TRIALS[name](uri, SHORT if given.short else Size()))
                print(line(name, rows[name]), flush=True)
        failures = sum(row["failures"] for row in rows.values())
        if given.result:
            content = {
                "machine": measured_on,
                "server_core": server_core,
                "load_core": load_core,
                "failures": failures,
                "seconds": round(time.monotonic() - started),
                "trials": rows,
            }
            print(f"written to {write(given.result, content).relative_to(ROOT)}")
        if failures:
            raise Problem(f"{failures} failures; the lines above say where")


if __name__ == "__main__":
    main()
