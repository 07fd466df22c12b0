"""Importing `stages` fixes how torch computes, and stops a stage that cannot go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def start_stage(folder: Path, name: str, *options: str) -> "subprocess.Popen[str]":
    command, pipe = [sys.executable, *options, "-m", f"stages.{name}"], subprocess.PIPE
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def test_environment_overrides_the_users(monkeypatch):
    code = "import stages, os, torch; print(os.environ['MKL_CBWR'], torch.get_num_threads())"
    monkeypatch.setenv("MKL_CBWR", "AVX512")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert output == "COMPATIBLE 1\n"


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_ctrl_c_while_torch_is_imported_is_reported(stage, tmp_path):
    process = start_stage(tmp_path, stage)
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    # Python ends itself by the signal, which a shell shows as 130.
    assert (output, errors, process.returncode) == ("", "interrupted\n", -signal.SIGINT)


def test_ctrl_c_has_status_130_in_a_shell():
    code = "import stages, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    command = ["bash", "-c", '"$0" -c "$1"; echo $?', sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("130\n", "interrupted\n")


@pytest.mark.parametrize("stage", ["generate", "train", "export", "evaluate", "register"])
def test_missing_packages_are_reported_with_a_hint(stage, tmp_path):
    process = start_stage(tmp_path, stage, "-S")  # without site-packages
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == (
        f"error: {sys.executable} has none of the pipeline's packages\n"
        "hint: run `make setup`, then `source .venv/bin/activate`\n"
    )


def start_dvc(code: str) -> Any:
    """Start a process that, like `dvc`, runs a stage and leaves it running when it is killed."""
    dvc = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command, pipe = [sys.executable, "-c", dvc, code], subprocess.PIPE
    env = os.environ | {"DVC_STAGE": "train"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def test_stage_of_a_killed_dvc_ends():
    process = start_dvc("import stages, time; print('started', flush=True); time.sleep(600)")
    assert process.stdout.readline() == "started\n"
    process.kill()
    _, errors = process.communicate(timeout=60)  # which the stage holds open until it ends
    assert errors == (
        "error: dvc was killed, so the stage stops\nhint: run `dvc repro` to continue\n"
    )


def test_stage_of_a_killed_dvc_ends_with_its_workers_though_the_terminal_is_closed():
    process = start_dvc(
        "import stages, joblib, time\n"
        "def work():\n    print('started', flush=True)\n    time.sleep(600)\n"
        "joblib.Parallel(2)(joblib.delayed(work)() for _ in range(2))"
    )
    assert [process.stdout.readline() for _ in range(2)] == ["started\n", "started\n"]
    process.stderr.close()
    process.kill()
    assert process.communicate(timeout=60)[0] == ""  # nobody holds it open any more
