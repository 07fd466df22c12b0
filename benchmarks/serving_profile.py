"""Sample where the service spends its core under 64 connections.

    make bench-profile    python -m benchmarks.serving_profile

`py-spy` (fetched by `uvx`, root) samples the service's Python stacks; a function's share is that of
the samples in which it runs, without those that it calls; C code counts as the function that calls
it. Writes benchmarks/results/serving-profile.json.
"""

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from arithmetic import artifacts
from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT, table, write
from benchmarks.serving_load import cores, random_equations, run_wrk
from benchmarks.serving_process import ServiceProcess, registry

PY_SPY = "py-spy==0.4.3"
SAMPLES_PER_SECOND = 500
CONNECTIONS, LARGEST = 64, 20
FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*):\d+\)")


def parse(raw: str) -> dict[str, Any]:
    """Return the shares of functions and packages in py-spy's raw format, `frame;frame count`."""
    functions: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        leaf = FRAME.fullmatch(stack.rpartition(";")[2])
        if leaf is None:  # the name of a thread
            continue
        functions[f"{leaf['file']} {leaf['function']}"] += int(count)
        packages[leaf["file"].partition("/")[0]] += int(count)
    total = functions.total()
    if not total:
        raise UserError("py-spy saw no Python frame")

    def shares(counts: Counter[str], number: int) -> dict[str, float]:
        return {name: round(count / total, 3) for name, count in counts.most_common(number)}

    return {
        "samples": total,
        "packages": shares(packages, LARGEST),
        "functions": shares(functions, LARGEST),
    }


def profile(model: Path, seconds: int) -> dict[str, Any]:
    """Run the service on a core of its own under load, and sample it for `seconds`."""
    grammar = artifacts.load_config(model).get_grammar()
    bodies = [f'{{"equation": "{text}"}}' for text in random_equations(grammar, "+-", 1000)]
    with registry(model) as (_, uri), tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        with ServiceProcess(uri, Path(folder), cores()[0]) as service:
            url = f"{service.address}/predict"
            run_wrk(url, bodies, CONNECTIONS, 1, cores()[1])
            record = ["uvx", "--quiet", PY_SPY, "record", "--pid", str(service.popen.pid)]
            record += ["--duration", str(seconds), "--rate", str(SAMPLES_PER_SECOND)]
            record += ["--format", "raw", "--output", str(raw), "--nonblocking"]
            with subprocess.Popen(record, stdout=subprocess.DEVNULL) as sampler:
                run_wrk(url, bodies, CONNECTIONS, seconds + 2, cores()[1])
            if sampler.returncode:
                raise UserError(f"py-spy ended with status {sampler.returncode}", "run it as root")
        return parse(raw.read_text())


def main() -> None:
    """Profile, print the shares and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_profile")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--model", type=Path, default=ROOT / "model")
    options = parser.parse_args()
    with cli_errors():
        figures = profile(options.model.resolve(), options.seconds)
        for name in ("packages", "functions"):
            print(table([{name: key, "share": share} for key, share in figures[name].items()]))
        print(f"wrote {write('serving-profile', figures)}")


if __name__ == "__main__":
    main()
