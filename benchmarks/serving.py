"""Measure the service beside the servers that a user could choose instead.

    make bench-serving        python -m benchmarks.serving [--only service,constant] [--rounds 5]

Each server has one core to itself, `wrk` the other; all answer the same equations by the same model
(one answers a constant). A round starts each server anew, checks its answers, warms it up and
measures 64 connections and one; each round begins with another server. Medians over the rounds.
Writes benchmarks/results/serving.json.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from arithmetic.grammar import solve
from benchmarks.results_file import ROOT, write
from benchmarks.serving_load import Sample, cores, random_equations, run_wrk
from benchmarks.serving_peers import (
    FOUR_OPERATIONS,
    SERVERS,
    Place,
    Server,
    ask,
    build_process,
    install,
    list_versions,
)
from benchmarks.serving_process import free_port, registry, running

MANY = 64
CHECKED = 50
EQUATIONS = 1000
# The targets, beside the constant answer of the same round.
THROUGHPUT_GOAL, THROUGHPUT_FLOOR, LATENCY_MS, LATENCY_RATIO = 1.2, 1.0, 0.5, 4.0

Samples = dict[int, list[Sample]]  # by connections, one for each round


def check(server: Server, url: str, model: Path) -> None:
    """Ask some equations; raise UserError at the first wrong answer."""
    grammar = artifacts.load_config(model).get_grammar()
    for text in random_equations(grammar, server.operations, CHECKED, seed=2):
        answer = ask(server, url, text)
        expected = "962" if server.is_constant else solve(grammar.parse(text))
        if answer != expected:
            raise UserError(f"{server.title} answers {text}{answer} instead of {expected}")


def run_round(
    server: Server, programs: Path, model: Path, uri: str, seconds: float, samples: Samples
) -> None:
    """Start a server, warm it up and measure it, with checks before and after."""
    server_core, load_core = cores()
    grammar = artifacts.load_config(model).get_grammar()
    bodies = [server.body(t) for t in random_equations(grammar, server.operations, EQUATIONS)]
    with tempfile.TemporaryDirectory(prefix="arithmetic-lm-") as scratch:
        place = Place(free_port(), Path(scratch), model, uri)
        url = f"http://127.0.0.1:{place.port}{server.path}"
        with running(build_process(server, programs, place, server_core)):
            run_wrk(url, bodies, MANY, 1, load_core)
            for connections in (MANY, 1):
                check(server, url, model)  # answered after what the load before left waiting
                sample = run_wrk(url, bodies, connections, seconds, load_core)
                samples[connections].append(sample)
            check(server, url, model)


def summarize(samples: Samples, constant: Samples | None) -> dict[str, Any]:
    """Return one server's medians over the rounds, also of the ratios to the constant answer."""
    row: dict[str, Any] = {}
    for connections, part in samples.items():
        values = [asdict(sample) for sample in part]
        figures = {key: round(median(v[key] for v in values), 3) for key in values[0]}
        figures["failures"] = sum(sample.failures for sample in part)
        row[f"connections_{connections}"] = figures
    if constant is not None:
        for name, connections, key in (
            ("throughput_of_constant", MANY, "requests_per_second"),
            ("latency_of_constant", 1, "p50_ms"),
        ):
            pairs = zip(samples[connections], constant[connections], strict=True)
            row[name] = round(median(getattr(a, key) / getattr(b, key) for a, b in pairs), 3)
    row["rounds"] = {str(n): [asdict(sample) for sample in part] for n, part in samples.items()}
    return row


def judge_targets(row: dict[str, Any]) -> dict[str, bool]:
    """Return which targets the service meets."""
    throughput, alone = row["throughput_of_constant"], row["connections_1"]["p50_ms"]
    return {
        f"throughput at least {THROUGHPUT_GOAL} times the constant answer's": (
            throughput >= THROUGHPUT_GOAL
        ),
        f"throughput at least {THROUGHPUT_FLOOR} times the constant answer's": (
            throughput >= THROUGHPUT_FLOOR
        ),
        f"one client at most {LATENCY_MS} ms or {LATENCY_RATIO:g} times the constant answer": (
            alone <= LATENCY_MS or row["latency_of_constant"] <= LATENCY_RATIO
        ),
    }


def show(rows: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    """Return the table as text; × is the throughput over the constant answer's."""
    lines = [f"{'':24}{f'---- {MANY} connections ----':>32}{'- one connection -':>20}"]
    lines.append(
        f"{'server':24}{'req/s':>8}{'×':>6}{'p50 ms':>9}{'p99 ms':>9}{'req/s':>10}{'p50 ms':>10}"
        f"{'failed':>8}"
    )
    for name, row in rows.items():
        many, one = row[f"connections_{MANY}"], row["connections_1"]
        ratio = row.get("throughput_of_constant")
        lines.append(
            f"{titles[name]:24}{many['requests_per_second']:8,.0f}"
            f"{'' if ratio is None else f'{ratio:.2f}':>6}{many['p50_ms']:9.2f}"
            f"{many['p99_ms']:9.2f}{one['requests_per_second']:10,.0f}{one['p50_ms']:10.2f}"
            f"{many['failures'] + one['failures']:8d}"
        )
    return "\n".join(lines)


def measure(
    servers: dict[str, Server], models: dict[str, Path], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure all servers; one that cannot be installed or started is in `not_measured`."""
    programs: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name, server in servers.items():
        try:
            programs[name] = install(name, server.requirements)
        except UserError as error:
            missing[name] = str(error)
    samples: dict[str, Samples] = {name: {MANY: [], 1: []} for name in programs}
    with registry(models["+-"], cores()[1]) as (_, uri):
        for number in range(rounds):
            order = list(samples)
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                server = servers[name]
                print(f"round {number + 1} of {rounds}: {server.title}", flush=True)
                model = models.get(server.operations, models["+-"])
                try:
                    run_round(server, programs[name], model, uri, seconds, samples[name])
                except UserError as error:
                    if not server.requirements:
                        raise  # no figures without our own
                    missing[name] = str(error)
                    del samples[name]
    constant = samples.get("constant")
    rows = {name: summarize(samples[name], constant) for name in servers if name in samples}
    versions = {name: list_versions(programs[name], servers[name].requirements) for name in rows}
    return {"servers": rows, "not_measured": missing, "versions": versions}


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--only", default="", help="names with commas between; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    parser.add_argument("--four-operations", type=Path, help="a model directory of + - * and /")
    parser.add_argument("--result", default="serving", help="name of the result; empty for none")
    options = parser.parse_args()
    with cli_errors():
        models = {"+-": options.model.resolve()}
        servers = dict(SERVERS)
        if options.four_operations:
            servers |= FOUR_OPERATIONS
            models |= dict.fromkeys("*/", options.four_operations.resolve())
        names = [name for name in options.only.split(",") if name] or list(servers)
        if unknown := sorted(set(names) - set(servers)):
            raise UserError(
                f"there is no server {unknown[0]!r}", f"choose from {', '.join(servers)}"
            )
        servers = {name: servers[name] for name in names}
        figures = measure(servers, models, options.rounds, options.seconds)
        rows = figures["servers"]
        print("\n" + show(rows, {name: server.title for name, server in servers.items()}))
        for name, reason in figures["not_measured"].items():
            print(f"{servers[name].title} not measured: {reason}")
        targets = judge_targets(rows["service"]) if {"service", "constant"} <= set(rows) else {}
        for target, is_met in targets.items():
            print(f"{'met' if is_met else 'NOT MET'}: {target}")
        if options.result:
            general = {
                "rounds": options.rounds,
                "seconds": options.seconds,
                "server_core": cores()[0],
                "load_core": cores()[1],
                "model_digest": artifacts.digest(models["+-"]),
                "targets_met": targets,
            }
            print(f"wrote {write(options.result, {**general, **figures})}")


if __name__ == "__main__":
    main()
