"""Run docker's commands, where an engine answers."""

import os
import shutil
import subprocess

import pytest

from tests.small_project import ROOT

_PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT")


def require_engine(program: str = "docker") -> None:
    """Skip the test where no engine answers or the program is missing; fail in CI."""
    installed = shutil.which(program)
    if not installed or subprocess.run(["docker", "info"], capture_output=True).returncode:
        assert "CI" not in os.environ, "no Docker engine answers; .ci/run starts one"
        pytest.skip(f"no Docker engine answers, or {program} is not installed")


def docker(*arguments: str) -> str:
    """Return the output of a command of docker."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout.strip()


def build_image(name: str, *options: str) -> str:
    """Build an image with this environment's settings of pip; return its name."""
    settings = [f"--build-arg={key}" for key in _PIP_SETTINGS if key in os.environ]
    docker("build", "--network=host", *settings, *options, "--tag", name, ".")
    return name
