"""Measure `make setup` (uv) beside pip: the same lock, each into a fresh environment.

    make bench-setup

Both with the settings of this machine for indexes, each once with an empty cache and once with the
cache that the first run filled. Reads requirements/dev.lock, writes benchmarks/results/setup.json.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from arithmetic.errors import cli_errors
from benchmarks.results_file import ROOT, write
from benchmarks.workspace import time_run

BY_PIP = (
    "$PYTHON -m venv .venv && .venv/bin/python -m pip install -qq --no-input "
    "--disable-pip-version-check -r requirements/dev.lock"
)
COMMANDS = {"uv": "scripts/setup.sh", "pip": BY_PIP}


def measure(scratch: Path) -> dict[str, dict[str, float]]:
    """Install by uv and by pip in turn; return seconds with a cold and with a warm cache."""
    folder = scratch / "checkout"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    # The system's Python and tools: uv counts with the time that pip takes to bring it.
    own = str(Path(sys.executable).parent)
    variables = {
        "PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != own),
        "PYTHON": str(Path(sys.base_prefix) / "bin" / "python3"),
        "UV_CACHE_DIR": str(scratch / "uv"),
        "PIP_CACHE_DIR": str(scratch / "pip"),
    }
    figures: dict[str, dict[str, float]] = {name: {} for name in COMMANDS}
    for cache in ("cold", "warm"):
        for name, command in COMMANDS.items():
            shutil.rmtree(folder / ".venv", ignore_errors=True)
            figures[name][cache] = round(time_run(["bash", "-c", command], folder, **variables), 1)
            print(f"{name}, {cache} cache: {figures[name][cache]} s", flush=True)
    return figures


def main() -> None:
    """Measure and write the result."""
    with cli_errors(), tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch))
        lines = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines()
        packages = sum(line[:1].isalpha() for line in lines)
        ratios = {cache: round(figures["uv"][cache] / s, 3) for cache, s in figures["pip"].items()}
        path = write("setup", {"packages": packages, "seconds": figures, "uv_to_pip": ratios})
        print("uv takes {cold:.0%} (cold) and {warm:.0%} (warm) of pip:".format(**ratios), path)


if __name__ == "__main__":
    main()
