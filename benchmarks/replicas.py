"""Measure one and two processes of the service behind nginx, all on the same two cores.

    make bench-replicas    python -m benchmarks.replicas

`wrk`, nginx and the services share the cores, so each row says which share of the used CPU time
each of them took: what a load generator on another machine would leave to the services. Medians of
rounds; the arrangements take turns. Writes benchmarks/results/replicas.json.
"""

import argparse
import os
import resource
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.serving_load import cores, random_equations, run_wrk
from benchmarks.serving_process import Process, ServiceProcess, registry
from scripts.quickstart import free_port

# Name: how many processes, and whether nginx is in front of them.
ARRANGEMENTS = {"1, no nginx": (1, False), "1": (1, True), "2": (2, True)}
CONNECTIONS = 64
NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream service {{ {servers} keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

Figures = dict[str, float]


def cpu_seconds(group: int) -> float:
    """Return the CPU time that the processes of a process group have used so far."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """Return the CPU time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_round(name: str, bodies: list[str], uri: str, seconds: float) -> Figures:
    """Start an arrangement, warm it up and measure it."""
    replicas, proxied = ARRANGEMENTS[name]
    shared = ",".join(map(str, cores()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = [
            stack.enter_context(ServiceProcess(uri, folder, shared)) for _ in range(replicas)
        ]
        port, proxies = services[0].port, []
        if proxied:
            port = free_port()
            servers = " ".join(f"server 127.0.0.1:{service.port};" for service in services)
            config = folder / "nginx.conf"
            config.write_text(NGINX.format(folder=folder, servers=servers, port=port))
            nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
            if nginx is None:
                raise UserError("nginx is not installed", "apt-get install nginx")
            command = [nginx, "-p", str(folder), "-c", str(config)]
            ready = f"http://127.0.0.1:{port}/readyz"
            proxies = [stack.enter_context(Process(command, ready, folder / "log", shared))]
        url = f"http://127.0.0.1:{port}/predict"
        run_wrk(url, bodies, CONNECTIONS, 1, shared)

        def used() -> list[float]:
            groups = (services, proxies)
            own = [sum(cpu_seconds(each.popen.pid) for each in group) for group in groups]
            return [*own, children_seconds()]

        before = used()
        sample = run_wrk(url, bodies, CONNECTIONS, seconds, shared)
        spent = [after - start for after, start in zip(used(), before, strict=True)]
    shares = {
        f"{part}_share": value / sum(spent)
        for part, value in zip(("services", "nginx", "wrk"), spent, strict=True)
    }
    return {"failures": sample.pop("failures"), **sample, **shares}


def main() -> None:
    """Measure all arrangements and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    options = parser.parse_args()
    with cli_errors():
        model = options.model.resolve()
        grammar = artifacts.load_config(model).get_grammar()
        bodies = [f'{{"equation": "{text}"}}' for text in random_equations(grammar, "+-", 1000)]
        samples: dict[str, list[Figures]] = {name: [] for name in ARRANGEMENTS}
        with registry(model) as (_, uri):
            for _ in range(options.rounds):
                for name, rounds in samples.items():
                    rounds.append(run_round(name, bodies, uri, options.seconds))
        rows: list[dict[str, Any]] = [
            {"processes": name}
            | {key: round(median(figures[key] for figures in rounds), 3) for key in rounds[0]}
            for name, rounds in samples.items()
        ]
        print(table(rows))
        general = {"rounds": options.rounds, "seconds": options.seconds}
        print(f"wrote {write('replicas', {**general, 'arrangements': rows})}")


if __name__ == "__main__":
    main()
