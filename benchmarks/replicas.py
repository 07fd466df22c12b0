"""Measure one and two processes of the service behind nginx, all on the same two cores.

    make bench-replicas    python -m benchmarks.replicas

`wrk`, nginx and the services share the cores, so each row says which share of the used CPU time
each of them took: what a load generator on another machine would leave to the services. Medians of
rounds; the arrangements take turns. Writes benchmarks/results/replicas.json.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.serving_load import cores, make_bodies, run_wrk
from benchmarks.serving_process import pin, pinned_service, registry
from benchmarks.workspace import environment
from scripts.server_process import ServerProcess, free_port

# Name: how many processes, and whether nginx is in front of them.
ARRANGEMENTS = {"1, no nginx": (1, False), "1": (1, True), "2": (2, True)}
CONNECTIONS, ROUNDS, SECONDS = 64, 3, 8.0
SITE = """\
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
"""


def build_nginx(folder: Path, ports: list[int], core: str) -> ServerProcess:
    """Return nginx before services, as one process. Raise UserError without it."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        raise UserError("nginx is not installed", "apt-get install nginx")
    port, servers = free_port(), " ".join(f"server 127.0.0.1:{port};" for port in ports)
    main = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text("utf-8")
    main = main.replace("/tmp/", f"{folder}/").replace("/etc/nginx/arithmetic-lm", str(folder))
    (folder / "nginx.conf").write_text(main)
    (folder / "site.conf").write_text(SITE.format(servers=servers, port=port))
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    command += ["-g", "daemon off; master_process off;"]
    address, log = f"http://127.0.0.1:{port}", folder / "log"
    return pin(ServerProcess(command, address, "/readyz", log, environment()), core)


def cpu_seconds(server: ServerProcess) -> float:
    """Return the CPU time that a process has used so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_round(name: str, bodies: list[str], uri: str) -> dict[str, Any]:
    """Start an arrangement, warm it up and measure it."""
    replicas, is_proxied = ARRANGEMENTS[name]
    shared = ",".join(map(str, cores()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = [
            stack.enter_context(pinned_service(uri, folder, shared)) for _ in range(replicas)
        ]
        proxies = []
        if is_proxied:
            nginx = build_nginx(folder, [service.port for service in services], shared)
            proxies = [stack.enter_context(nginx)]
        url = f"{[*services, *proxies][-1].address}/predict"
        run_wrk(url, bodies, CONNECTIONS, 1, shared)

        def used() -> pd.Series:
            parts = {"services": sum(map(cpu_seconds, services)), "wrk": sum(os.times()[2:4])}
            return pd.Series({**parts, "nginx": sum(map(cpu_seconds, proxies))})

        before = used()
        sample = run_wrk(url, bodies, CONNECTIONS, SECONDS, shared)
        spent = used() - before
    shares = {f"{part}_share": spent[part] / spent.sum() for part in spent.index}
    return {"processes": name, **sample, **shares}


def main() -> None:
    """Measure all arrangements and write the result."""
    with cli_errors():
        bodies = make_bodies(ROOT / "model")
        with registry(ROOT / "model") as mlflow:
            names = [*ARRANGEMENTS] * ROUNDS
            samples = [run_round(name, bodies, mlflow.address) for name in names]
        medians = pd.DataFrame(samples).groupby("processes", sort=False).median().round(3)
        rows = medians.reset_index().to_dict("records")
        print(table(rows))
        general = {"rounds": ROUNDS, "seconds": SECONDS}
        print(f"wrote {write('replicas', {**general, 'arrangements': rows})}")


if __name__ == "__main__":
    main()
