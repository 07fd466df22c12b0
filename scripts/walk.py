"""make run: params.yaml → dvc repro → registry → Production → a service that answers.

Leaves nothing running. It promotes a version that this very run registered, or any when there is no
Production yet; what a person promoted or rolled back stays as it is, and it says so.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arithmetic import bundle
from arithmetic.errors import Problem, reported
from registry import ALIAS, MODEL, store
from registry.errors import PromotionRefused
from registry.promote import production, promote
from registry.record import version_of
from registry.versions import numbers
from scripts.client import ask, get, question_for
from scripts.mend import mended
from scripts.service import service
from scripts.tracking_server import free_port, tracking_server, usual_port


def reproduce(root: Path) -> float:
    """`dvc repro`; returns its seconds.

    In a fresh clone the committed bundle already is what dvc.lock says, and DVC would rightly skip
    the training. The first run there trains all the same, so that the lock is proved on this
    machine and not believed.
    """
    command = [sys.executable, "-m", "dvc", "repro"]
    if not any((root / ".dvc" / "cache").glob("files/md5/*")):
        print("run: first run here: every stage is run, to prove dvc.lock on this machine")
        command.append("--force")
    for sentence in mended(root):
        print(f"run: {sentence}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    started = time.monotonic()
    done = subprocess.run(command, cwd=root, env=environment, check=False)
    if done.returncode:
        raise Problem("dvc repro failed (its own words are above); mend that and run this again")
    return time.monotonic() - started


def choose(root: Path, before: set[str]) -> str:
    """Promote where it is this run's to do; returns a sentence on what was done.

    Args:
        before: the versions that were registered before this run.
    """
    version = version_of(bundle.digest(root / "bundle"), root)
    if version is None:
        raise Problem("the pipeline registered no version; run `dvc repro` and read its end")
    present = production(root)
    if present == version:
        return f"version {version} of {MODEL} is {ALIAS}"
    if present is not None and version in before:
        return (
            f"version {version} was registered before and version {present} is {ALIAS}: left as it "
            f"is; `make promote VERSION={version}` changes it"
        )
    try:
        promote(version, root, reason="make run")
    except PromotionRefused as refusal:
        if present is None:
            raise
        return f"{ALIAS} stays version {present}: {refusal}"
    return f"version {version} of {MODEL} is new and now {ALIAS}"


def walk(root: Path) -> None:
    """The whole of `make run`."""
    before = numbers(root)
    seconds = reproduce(root)
    print(f"pipeline: {seconds:.0f} s", flush=True)
    state = choose(root, before)
    print(f"registry: {state}", flush=True)
    log = Path(tempfile.gettempdir()) / f"arithmetic-lm-service-{os.getpid()}.log"
    database = store.database_to_serve(root)
    if database is None:
        health, answer = question(root, store.tracking_uri(root), log)
    else:  # the service talks to servers only
        home = store.root(root)
        port = usual_port("127.0.0.1", home)
        with tracking_server(home, port=port, database=database) as uri:
            health, answer = question(root, uri, log)
    log.unlink()
    print(
        f"service:  version {health['model_version']} answered {answer['full_output']} "
        f"in {answer['latency_ms']} ms\n\n"
        f"metrics   metrics/evaluation.json, `dvc metrics show`, `dvc plots show`\n"
        f"registry  version {health['model_version']} of {MODEL}, bundle "
        f"{health['bundle_sha256'][:12]}\n\n"
        "Next, after `source .venv/bin/activate`:\n"
        "  mlflow ui                      compare runs and versions\n"
        "  dvc exp run -S train.seed=2    another model\n"
        "  make promote VERSION=…         make it Production; make rollback returns\n"
        "  make serve                     serve Production on this machine\n"
        "  make docker                    serve it from a container (prints the docker run …)"
    )


def question(root: Path, tracking_uri: str, log: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Start the service, ask it what it serves and one equation, end it."""
    with service(root, tracking_uri, free_port("127.0.0.1"), log) as address:
        health = get(f"{address}/health")
        return health, ask(address, question_for(health))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with reported():
        walk(Path.cwd())


if __name__ == "__main__":
    main()
