"""make setup: what it does before anything is installed, and how it fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEAD_INDEX = "http://127.0.0.1:9/simple"
INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE")


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "scripts/setup.sh", tmp_path / "scripts")
    (tmp_path / "requirements/dev.lock").write_text("uv==0.0.1\n", encoding="utf-8")
    return tmp_path


def run_setup(checkout, *, uv=None, **environment):
    """Run it with a PATH of this Python, the system's tools and, if given, a script as `uv`."""
    programs = checkout / "programs"
    programs.mkdir(exist_ok=True)
    if uv is not None:
        (programs / "uv").write_text(f"#!/bin/sh\n{uv}\n", encoding="utf-8")
        (programs / "uv").chmod(0o755)
    base = {k: v for k, v in os.environ.items() if k not in INDEXES and not k.startswith("UV_")}
    settings = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHON": sys.executable}
    settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", **environment}
    command, settings = str(checkout / "scripts/setup.sh"), base | settings
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def uv_settings(done):
    return [line for line in done.stdout.splitlines() if line.startswith("UV_")]


# A uv that shows its settings and makes an environment with this Python in it.
FAKE_UV = f"""
case "$*" in
*--help) echo --torch-backend ;;
venv*) mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python && echo made >>made.log ;;
*) env | grep ^UV_ | sort; grep == requirements/dev.lock ;;
esac
"""


def test_old_python_and_failure_without_network_have_a_hint(checkout):
    done = run_setup(checkout, PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr.startswith("error: /bin/false is not Python 3.11 or newer\nhint: install")
    failing = FAKE_UV.replace("*) env", "*) exit 2 ;; never) env")
    done = run_setup(checkout, uv=failing)
    assert done.returncode == 1
    assert "error: uv could not install requirements/dev.lock" in done.stderr
    assert "hint: check the network" in done.stderr
    assert not (checkout / ".venv/stamp").exists()


def test_cpu_build_of_torch_is_the_default(checkout):
    done = run_setup(checkout, uv=FAKE_UV)
    assert done.returncode == 0, done.stderr
    has_gpu = os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi")
    assert ("UV_TORCH_BACKEND=cpu" in done.stdout) is (sys.platform == "linux" and not has_gpu)


def test_settings_of_pip_are_passed_to_uv(checkout):
    config = checkout / "pip.conf"
    config.write_text(
        "[global]\nextra-index-url =\n    file:///one\n    file:///two\ncert = /ca.pem\n"
        "find-links = /overridden\n",
        encoding="utf-8",
    )
    done = run_setup(checkout, uv=FAKE_UV, PIP_CONFIG_FILE=str(config), PIP_FIND_LINKS="/a /b")
    assert uv_settings(done) == [
        "UV_FIND_LINKS=/a,/b",
        "UV_INDEX=file:///one file:///two",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]


@pytest.mark.parametrize("name", ["UV_INDEX", "UV_FIND_LINKS", "UV_TORCH_BACKEND"])
def test_settings_of_uv_win(checkout, name):
    done = run_setup(checkout, uv=FAKE_UV, PIP_INDEX_URL=DEAD_INDEX, **{name: "given"})
    assert uv_settings(done) == [f"{name}=given"]


def test_an_environment_is_kept_and_made_anew_without_its_python_or_after_a_move(
    checkout, tmp_path_factory
):
    run_setup(checkout, uv=FAKE_UV)
    assert run_setup(checkout, uv="exit 1").stdout == ""
    (checkout / "requirements/dev.lock").write_text("uv==0.0.2\n", encoding="utf-8")
    assert "uv==0.0.2" in run_setup(checkout, uv=FAKE_UV).stdout
    assert (checkout / "made.log").read_text() == "made\n"
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to("/nonexistent")
    assert run_setup(checkout, uv=FAKE_UV).returncode == 0
    assert (checkout / "made.log").read_text() == "made\n" * 2
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    checkout.rename(moved)
    assert run_setup(moved, uv=FAKE_UV).returncode == 0
    assert (moved / "made.log").read_text() == "made\n" * 3


def test_a_linked_environment_is_never_changed(checkout, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "precious").touch()
    (checkout / ".venv").symlink_to(other)
    done = run_setup(checkout, uv=FAKE_UV)
    assert done.returncode == 1
    assert "error: .venv is a link" in done.stderr
    assert (other / "precious").exists()
