"""The training image runs the pipeline of a checkout, with the hashes of its dvc.lock."""

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.docker_engine import build_image, docker, require_engine
from tests.small_project import git

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@contextmanager
def serve_wheels() -> Iterator[list[str]]:
    """Yield the build argument for PIP_FIND_LINKS; a folder of this machine is served over HTTP."""
    folder = os.environ.get("PIP_FIND_LINKS", "")
    if not os.path.isdir(folder):
        yield [f"--build-arg=PIP_FIND_LINKS={folder}"] if folder else []
        return
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield [f"--build-arg=PIP_FIND_LINKS=http://127.0.0.1:{server.server_port}/"]
        server.shutdown()


@pytest.fixture(scope="module")
def image() -> str:
    require_engine()
    with serve_wheels() as links:
        return build_image("arithmetic-lm-training:test", "--file=training.Dockerfile", *links)


def test_a_repro_in_the_image_has_the_hashes_of_the_lock(image, project):
    lock = (project / "dvc.lock").read_bytes()
    for name in (".dvc/cache", "data", "model", "reports", "metrics", "dvc.lock"):
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    user = f"{os.getuid()}:{os.getgid()}"
    run = ("run", "--rm", "--network=none", f"--user={user}", f"--volume={project}:/work", image)
    assert "Running stage 'train'" in docker(*run, "dvc", "repro")
    assert (project / "dvc.lock").read_bytes() == lock
    assert git(project, "status", "--porcelain") == ""
    assert "changed" not in docker(*run, "dvc", "status", "evaluate")
