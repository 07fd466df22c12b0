"""make bench-serving: this service beside those that a user would pick instead.

Every server stands alone on one core while it is measured, the load generator on another; all
answer by the same model (but for the route with a constant answer), and are asked the same
equations. A round starts each server anew, checks its answers, warms it up and measures it with 64
connections and with one. Rounds are repeated, each beginning with another server, and medians
count: what drifts on the machine drifts for all.
"""

import argparse
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arithmetic import bundle
from arithmetic.errors import Problem, reported
from benchmarks.results_file import write
from benchmarks.serving_load import Sample, cores, require, run
from benchmarks.serving_peers import ROOT, SERVERS, installed, versions
from benchmarks.serving_process import check, questions, running
from benchmarks.serving_store import REGISTRY_HELP, registry

MANY = 64
CHECKED = 50
QUESTIONS = 1000
# What issue #6 asks of the service, against the constant answer.
THROUGHPUT_RATIO, LATENCY_MS, LATENCY_RATIO = 1.2, 0.5, 3.0

Samples = dict[int, list[Sample]]  # connections to one sample a round


def one_round(
    name: str, programs: Path, uri: str, tool: str, seconds: float, samples: Samples
) -> None:
    """Start, check, warm up, measure, check again."""
    server = SERVERS[name]
    bodies = [server.body(text) for text in questions(server.operations, QUESTIONS)]
    with running(name, programs, uri) as url:
        check(name, url, CHECKED)
        run(tool, url, bodies, MANY, 1)
        for connections in (MANY, 1):
            samples[connections].append(run(tool, url, bodies, connections, seconds))
        check(name, url, CHECKED)


def medians(samples: list[Sample]) -> dict[str, float]:
    """Of each figure the median; failures are added up."""
    rows = [asdict(sample) for sample in samples]
    found = {
        key: round(statistics.median(row[key] for row in rows), 3)
        for key in ("requests_per_second", "p50_ms", "p99_ms")
    }
    return {**found, "failures": sum(sample.failures for sample in samples)}


def ratio(samples: Samples, constant: Samples, connections: int, figure: str) -> float:
    """Median over the rounds of a figure over the constant route's in the same round."""
    pairs = zip(samples[connections], constant[connections], strict=True)
    return round(
        statistics.median(getattr(own, figure) / getattr(other, figure) for own, other in pairs), 3
    )


def figures(samples: Samples, constant: Samples | None) -> dict[str, Any]:
    """One server's row."""
    row: dict[str, Any] = {
        f"connections_{connections}": medians(samples[connections]) for connections in samples
    }
    if constant is not None:
        row["throughput_of_constant"] = ratio(samples, constant, MANY, "requests_per_second")
        row["latency_of_constant"] = ratio(samples, constant, 1, "p50_ms")
    row["rounds"] = {
        f"connections_{connections}": [asdict(sample) for sample in samples[connections]]
        for connections in samples
    }
    return row


def verdict(service: dict[str, Any]) -> dict[str, bool]:
    """Whether the bars are met."""
    alone = service["connections_1"]["p50_ms"]
    return {
        f"throughput at least {THROUGHPUT_RATIO} x the constant answer": (
            service["throughput_of_constant"] >= THROUGHPUT_RATIO
        ),
        f"one client's median at most {LATENCY_MS} ms or {LATENCY_RATIO:g} x the constant's": (
            alone <= LATENCY_MS or service["latency_of_constant"] <= LATENCY_RATIO
        ),
    }


def table(rows: dict[str, dict[str, Any]], missing: dict[str, str]) -> str:
    """What is printed; × is throughput over the constant answer's."""
    over = f"{'':26}{f'--- {MANY} connections ---':>34}{'- 1 connection -':>20}"
    columns = ("req/s", 8), ("×", 6), ("p50 ms", 10), ("p99 ms", 10), ("req/s", 10), ("p50 ms", 10)
    under = f"{'server':26}" + "".join(f"{name:>{width}}" for name, width in columns)
    lines = [over, f"{under}{'failed':>8}"]
    for name, row in rows.items():
        many, one = row[f"connections_{MANY}"], row["connections_1"]
        times = row.get("throughput_of_constant")
        lines.append(
            f"{SERVERS[name].title:26}{many['requests_per_second']:8,.0f}"
            f"{'' if times is None else f'{times:.2f}':>6}{many['p50_ms']:10.2f}"
            f"{many['p99_ms']:10.2f}{one['requests_per_second']:10,.0f}{one['p50_ms']:10.2f}"
            f"{many['failures'] + one['failures']:8d}"
        )
    lines += [f"{SERVERS[name].title:26} not measured: {why}" for name, why in missing.items()]
    return "\n".join(lines)


def measure(
    names: list[str], tool: str, rounds: int, seconds: float, given: str = ""
) -> dict[str, Any]:
    """All servers, all rounds; those that cannot be installed or do not start are `missing`."""
    programs: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            programs[name] = installed(name)
        except Problem as problem:
            missing[name] = str(problem)
    samples: dict[str, Samples] = {name: {MANY: [], 1: []} for name in programs}
    four_operations = any(name in ("multiplication", "division") for name in names)
    with registry(given, four_operations) as uri:
        for number in range(rounds):
            order = list(samples)
            shift = number % max(1, len(order))
            for name in order[shift:] + order[:shift]:
                print(f"round {number + 1} of {rounds}: {SERVERS[name].title}", flush=True)
                try:
                    one_round(name, programs[name], uri, tool, seconds, samples[name])
                except Problem as problem:
                    if SERVERS[name].requirements == ():
                        raise  # our own: no figures without it
                    missing[name] = str(problem)
                    del samples[name]
    constant = samples.get("constant")
    rows = {name: figures(samples[name], constant) for name in names if name in samples}
    used = {name: versions(name, programs[name]) for name in rows}
    return {"rows": rows, "missing": missing, "versions": used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SERVERS), help="names, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--load", choices=("wrk", "python"), default="wrk")
    parser.add_argument("--result", default="serving", help="name of the result; empty: none")
    parser.add_argument("--registry", default="", help=REGISTRY_HELP)
    given = parser.parse_args()
    with reported():
        names = [name for name in given.only.split(",") if name]
        unknown = sorted(set(names) - set(SERVERS))
        if unknown:
            raise Problem(f"no server is called {unknown[0]}; there are {', '.join(SERVERS)}")
        require(given.load)
        found = measure(names, given.load, given.rounds, given.seconds, given.registry)
        print("\n" + table(found["rows"], found["missing"]))
        bars = verdict(found["rows"]["service"]) if {"service", "constant"} <= set(names) else {}
        for bar, met in bars.items():
            print(f"{'met' if met else 'NOT MET'}: {bar}")
        server_core, load_core = cores()
        if server_core == load_core:
            print("one core only: servers and load share it, so the figures are too low")
        if given.result:
            content = {
                "load_generator": given.load,
                "rounds": given.rounds,
                "seconds": given.seconds,
                "server_core": server_core,
                "load_core": load_core,
                "bundle_sha256": bundle.digest(ROOT / "bundle"),
                "bars_met": bars,
                "servers": found["rows"],
                "not_measured": found["missing"],
                "versions": found["versions"],
            }
            print(f"written to {write(given.result, content).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
