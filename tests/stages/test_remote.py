"""A DVC remote in a folder or in S3: a clone pulls what was pushed, and trains nothing.

The S3 server is rclone's (`rclone serve s3`): it checks signatures.
"""

import shutil
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


@pytest.fixture(scope="module")
def origin(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the pipeline that pushes."""
    return Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("origin") / "project"))


def clone(origin: Path, target: Path, url: str) -> Path:
    """Clone without cache and outputs, and name the remote."""
    git(target.parent, "clone", "-q", str(origin), str(target))
    dvc(target, "config", "--local", "remote.storage.url", url)
    assert not (target / "model").exists()
    return target


@pytest.mark.slow
def test_clone_pulls_from_a_folder(origin, tmp_path):
    url = str(tmp_path / "remote")
    dvc(origin, "config", "--local", "remote.storage.url", url)
    assert "files pushed" in dvc(origin, "push")
    target = clone(origin, tmp_path / "clone", url)
    dvc(target, "pull")
    check_workspace(target, read_lock(target))
    assert "Running stage" not in dvc(target, "repro", "evaluate")
    assert git(target, "status", "--porcelain") == ""


@pytest.mark.slow
def test_clone_reproduces_from_s3_with_the_right_key_and_without_training(origin, s3, tmp_path):
    url = f"s3://shared/{tmp_path.name}"
    dvc(origin, "config", "--local", "remote.storage.url", url)
    assert "files pushed" in dvc(origin, "push", **s3)
    target = clone(origin, tmp_path / "clone", url)
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
