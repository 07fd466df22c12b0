"""Sample where the service spends its core under 64 connections.

    make bench-profile    python -m benchmarks.serving_profile

`py-spy` (fetched by `uvx`, root) samples the service's Python stacks; a function's share is that of
the samples in which it runs, without those that it calls; C code counts as the function that calls
it. Writes benchmarks/results/serving-profile.json.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, write
from benchmarks.serving_load import cores, make_bodies, run_wrk
from benchmarks.serving_process import pinned_service, registry

PY_SPY = "py-spy==0.4.3"
SECONDS, SAMPLES_PER_SECOND = 20, 500
CONNECTIONS, LARGEST = 64, 20
# A stack in py-spy's raw format, and its count: the innermost function's name, file and line.
STACK = re.compile(r"(?:.*;)?(.*) \((.*):\d+\) (\d+)")


def parse(raw: str) -> dict[str, Any]:
    """Return the shares of functions and packages in py-spy's raw format."""
    leaves = pd.DataFrame(STACK.findall(raw), columns=["function", "file", "count"])
    if leaves.empty:
        raise UserError("py-spy saw no Python frame")
    leaves["count"] = leaves["count"].astype(int)
    leaves["functions"] = leaves["file"] + " " + leaves["function"]
    leaves["packages"] = leaves["file"].str.partition("/")[0]
    total, figures = int(leaves["count"].sum()), {}
    for name in ("packages", "functions"):
        shares = leaves.groupby(name)["count"].sum() / total
        figures[name] = shares.nlargest(LARGEST).round(3).to_dict()
    return {"samples": total, **figures}


def profile() -> dict[str, Any]:
    """Run the service on a core of its own under load, and sample it."""
    bodies, core = make_bodies(ROOT / "model"), cores()[1]
    with registry(ROOT / "model") as mlflow, tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        with pinned_service(mlflow.address, Path(folder), cores()[0]) as service:
            url = f"{service.address}/predict"
            run_wrk(url, bodies, CONNECTIONS, 1, core)
            record = ["uvx", "--quiet", PY_SPY, "record", "--pid", str(service.process.pid)]
            record += ["--duration", str(SECONDS), "--rate", str(SAMPLES_PER_SECOND)]
            record += ["--format", "raw", "--output", str(raw), "--nonblocking"]
            with subprocess.Popen(record, stdout=subprocess.DEVNULL) as sampler:
                run_wrk(url, bodies, CONNECTIONS, SECONDS + 2, core)
            if sampler.returncode:
                raise UserError(f"py-spy ended with status {sampler.returncode}", "run it as root")
        return parse(raw.read_text())


def main() -> None:
    """Profile, print the shares and write the result."""
    with cli_errors():
        figures = profile()
        for name in ("packages", "functions"):
            print(pd.Series(figures[name], name="share").to_string(), "\n")
        print(f"wrote {write('serving-profile', figures)}")


if __name__ == "__main__":
    main()
