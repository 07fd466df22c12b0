"""make docker: the Production version of this machine's store, served from a container.

    python -m scripts.docker

Builds the image, starts a tracking server that the container can reach (or uses the one that
MLFLOW_TRACKING_URI names), runs the container, asks it one question, and ends what it started. The
last lines printed are the commands that keep one running.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from arithmetic.errors import Problem, reported
from registry import ALIAS, MODEL, store
from registry.promote import production
from scripts import containers
from scripts.client import ask, question_for
from scripts.containers import HOST_NAME, IMAGE, ROOT
from scripts.tracking_server import free_port, tracking_server

MODEL_URI = f"models:/{MODEL}@{ALIAS}"


def production_version() -> str:
    """The version behind the alias; raises Problem when there is none."""
    version = production(ROOT)
    if version is None:
        raise Problem(f"no version of {MODEL} is promoted to {ALIAS} yet: type `make run`")
    return version


def named_server() -> str | None:
    """The server that MLFLOW_TRACKING_URI names; None for the store in this folder.

    Not asked of the environment: MLflow sets that variable itself, to whichever store it opened.
    """
    uri = store.tracking_uri(ROOT)
    return None if uri == store.default_uri(ROOT) else uri


@contextmanager
def server_for_containers(address: str) -> Iterator[str]:
    """Yields the tracking URI that a container is to use."""
    named = named_server()
    if named is None:
        with tracking_server(store.root(ROOT), address, [HOST_NAME]) as server:
            yield server.replace(address, HOST_NAME)
    elif urlsplit(named).hostname in (None, "localhost", "127.0.0.1", "::1"):
        raise Problem(
            f"a container cannot reach MLFLOW_TRACKING_URI={named}: unset it, and a server over "
            "the store in this folder is started, or name a server by an address of the network"
        )
    else:
        yield named


def demonstrate() -> None:
    """The whole of `make docker`."""
    containers.check_engine()
    version = production_version()
    print(f"docker: building {IMAGE} (a minute the first time)", flush=True)
    containers.build()
    size = int(containers.docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) / 1e6
    address = containers.reachable_address()
    port = free_port("127.0.0.1")
    print(f"docker: {IMAGE} is {size:.0f} MB; starting version {version} in it", flush=True)
    with server_for_containers(address) as tracking_uri:
        arguments = containers.run_arguments(tracking_uri, MODEL_URI, port)
        with containers.container(IMAGE, arguments) as identity:
            url = f"http://127.0.0.1:{port}"
            health = containers.wait_until_ready(identity, url)
            asked = question_for(health)
            answer = ask(url, asked)
    print(
        f"docker: version {health['model_version']} answered {asked}"
        f"{answer['predicted_answer']} in {answer['latency_ms']} ms\n"
    )
    print(how_to_keep_one(address))


def how_to_keep_one(address: str) -> str:
    """The commands for a container that stays, and for the server it needs while it starts."""
    named = named_server()
    tracking_uri = named or f"http://{HOST_NAME}:5000"
    arguments = containers.run_arguments(tracking_uri, MODEL_URI, 8000)
    run = f"  docker run --rm {' '.join(arguments)} {IMAGE}"
    if named:
        return f"To keep one running:\n{run}"
    return (
        "To keep one running, in two terminals:\n"
        f"  .venv/bin/mlflow server --backend-store-uri {store.default_uri(ROOT)} "
        f"--artifacts-destination {store.root(ROOT) / 'mlartifacts'} --host {address} "
        f"--port 5000 --allowed-hosts {HOST_NAME}:5000,{address}:5000\n{run}"
    )


def main() -> None:
    # Ended from outside, the blocks above must still be left: they end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with reported():
        demonstrate()


if __name__ == "__main__":
    main()
