"""A DVC remote in a folder or in S3: a clone pulls what was pushed, and trains nothing.

The S3 server is rclone's (`rclone serve s3`): it checks signatures.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.dvc_lock import check_workspace, read_lock
from scripts.server_process import free_port
from tests.small_project import ROOT, dvc, git, run

KEYS = {
    "AWS_ACCESS_KEY_ID": "the-key",
    "AWS_SECRET_ACCESS_KEY": "the-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run an S3 server on loopback with a bucket `shared`; yield the variables that name it."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data" / "shared").mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder / "data")]
    command += ["--addr", address, "--config", "", "--log-file", str(folder / "log")]
    command += ["--auth-key", f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with httpx.Client(trust_env=False) as client:
            for _ in range(600):
                try:
                    status = client.get(f"http://{address}/shared").status_code
                    break
                except httpx.TransportError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
        assert status in (400, 403)  # without a signature
        yield {**KEYS, "AWS_ENDPOINT_URL": f"http://{address}", "NO_PROXY": "127.0.0.1"}
    finally:
        server.terminate()
        server.wait(30)


def push_and_clone(project: Path, url: str, **variables: str) -> Path:
    """Push a project's outputs; return a clone without cache and outputs, which names the remote.

    The remote is in the local config, which is not cloned.
    """
    target = project.with_name("clone")
    dvc(project, "config", "--local", "remote.storage.url", url)
    assert "files pushed" in dvc(project, "push", **variables)
    git(project.parent, "clone", "-q", str(project), str(target))
    dvc(target, "config", "--local", "remote.storage.url", url)
    assert not (target / "model").exists()
    return target


@pytest.mark.slow
def test_clone_pulls_from_a_folder(project, tmp_path):
    target = push_and_clone(project, str(tmp_path / "remote"))
    dvc(target, "pull")
    check_workspace(target, read_lock(target))
    assert "Running stage" not in dvc(target, "repro", "evaluate")
    assert git(target, "status", "--porcelain") == ""


@pytest.mark.slow
def test_clone_reproduces_from_s3_with_the_right_key_and_without_training(project, s3):
    target = push_and_clone(project, "s3://shared/project", **s3)
    wrong = s3 | {"AWS_SECRET_ACCESS_KEY": "another"}
    done = run(target, sys.executable, "-m", "dvc", "pull", **wrong)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert not (target / "model").exists()
    assert "Running stage" not in dvc(target, "repro", "--pull", "evaluate", **s3)
    check_workspace(target, read_lock(target))
    assert git(target, "status", "--porcelain") == ""


def test_default_remote_is_a_folder_outside_of_the_repository():
    name, url, *_ = dvc(ROOT, "remote", "list").split()
    assert name == "storage"
    folder = Path(url).expanduser()
    assert folder.is_absolute()
    assert not folder.is_relative_to(ROOT)
