"""A DVC remote in a folder and in S3: what one pushes, a fresh clone pulls, and nothing trains.

The S3 server is rclone's (`rclone serve s3`): it speaks the API over HTTP and checks signatures.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.small import dvc_environment, files_of, git
from scripts.tracking_server import free_port
from tests.conftest import dvc

ROOT = Path(__file__).resolve().parents[1]
ACCESS = {
    "AWS_ACCESS_KEY_ID": "the-key",
    "AWS_SECRET_ACCESS_KEY": "the-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server on loopback with one bucket `shared`; yields the variables that name it."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "shared").mkdir()
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder)]
    command += ["--addr", address, "--config", "", "--log-file", str(folder.parent / "s3.log")]
    keys = f"{ACCESS['AWS_ACCESS_KEY_ID']},{ACCESS['AWS_SECRET_ACCESS_KEY']}"
    server = subprocess.Popen([*command, "--auth-key", keys], stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                status = httpx.get(f"http://{address}/shared").status_code
                break
            except httpx.TransportError:
                assert server.poll() is None, "rclone serve s3 ended by itself"
                time.sleep(0.1)
        assert status in (400, 403), "it must not let in who has no signature"
        yield {**ACCESS, "AWS_ENDPOINT_URL": f"http://{address}"}
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def shared(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the small pipeline with its outputs committed, as this one has them."""
    origin = tmp_path_factory.mktemp("origin") / "small"
    subprocess.run(["cp", "-a", str(pipeline), str(origin)], check=True)
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "with outputs")
    return origin


def clone(origin: Path, target: Path, url: str) -> Path:
    """As a stranger has it: no cache, no data; the remote's address is the one setting."""
    git(target.parent, "clone", "-q", str(origin), str(target))
    dvc(target, "config", "--local", "remote.storage.url", url)
    assert not (target / "data").exists()
    return target


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_clone_pulls_what_was_pushed(kind, shared, s3, tmp_path, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    url = f"s3://shared/{tmp_path.name}" if kind == "s3" else str(tmp_path / "remote")
    dvc(shared, "config", "--local", "remote.storage.url", url)
    assert "files pushed" in dvc(shared, "push")
    assert "Everything is up to date" in dvc(shared, "push")

    pulled = clone(shared, tmp_path / "pulled", url)
    dvc(pulled, "pull")
    assert files_of(pulled) == files_of(shared)
    assert "Running stage" not in dvc(pulled, "repro", "evaluate")

    reproduced = clone(shared, tmp_path / "reproduced", url)
    assert "Running stage" not in dvc(reproduced, "repro", "--pull", "evaluate")
    assert files_of(reproduced) == files_of(shared)


@pytest.mark.slow
def test_a_wrong_key_pulls_nothing(shared, s3, tmp_path, monkeypatch):
    for name, value in (s3 | {"AWS_SECRET_ACCESS_KEY": "another"}).items():
        monkeypatch.setenv(name, value)
    target = clone(shared, tmp_path / "clone", "s3://shared/any")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"],
        cwd=target,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(target.glob("data/*"))


def test_the_default_remote_is_a_folder_outside_the_repository():
    shown = dvc(ROOT, "remote", "list").split()
    assert shown[0] == "storage"
    folder = Path(os.path.expanduser(shown[1]))
    assert folder.is_absolute()
    assert not folder.is_relative_to(ROOT)
