"""Measure `make setup` (uv) beside pip: the same lock, each into a fresh environment.

    make bench-setup

Both with the settings of this machine for indexes, each once with an empty cache and once with the
cache that the first run filled. Reads requirements/dev.lock, writes benchmarks/results/setup.json.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import write

ROOT = Path(__file__).resolve().parents[1]


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Run a command; return its wall-clock time."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed (see above)", "check the network")
    return round(time.monotonic() - started, 1)


def measure(scratch: Path) -> dict[str, dict[str, float]]:
    """Install by uv and by pip in turn; return seconds with a cold and with a warm cache."""
    folder = scratch / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    # The system's Python and tools: uv counts with the time that pip takes to bring it.
    own = str(Path(sys.executable).parent)
    path = [part for part in os.environ["PATH"].split(os.pathsep) if part != own]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHON": str(Path(sys.base_prefix) / "bin" / "python3"),
        "UV_CACHE_DIR": str(scratch / "uv"),
        "PIP_CACHE_DIR": str(scratch / "pip"),
    }
    by_pip = (
        "$PYTHON -m venv .venv && .venv/bin/python -m pip install -qq --no-input "
        "--disable-pip-version-check -r requirements/dev.lock"
    )
    commands = {"uv": ["scripts/setup.sh"], "pip": ["bash", "-c", by_pip]}
    figures: dict[str, dict[str, float]] = {name: {} for name in commands}
    for cache in ("cold", "warm"):
        for name, command in commands.items():
            shutil.rmtree(folder / ".venv", ignore_errors=True)
            figures[name][cache] = seconds(command, folder, environment)
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
        print(
            f"uv takes {ratios['cold']:.0%} (cold) and {ratios['warm']:.0%} (warm) of pip: {path}"
        )


if __name__ == "__main__":
    main()
