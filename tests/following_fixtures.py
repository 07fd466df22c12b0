"""Versions that answer differently, a real MLflow server over them, and real service processes."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from onnx import numpy_helper

from arithmetic import bundle
from arithmetic.config import load_config
from registry import ALIAS, BUNDLE_PATH, BUNDLE_TAG, EXPERIMENT, MODEL, store
from scripts.tracking_server import free_port
from tests.registry_fixtures import empty_store

REPOSITORY = Path(__file__).resolve().parents[1]
EXACT = REPOSITORY / "bundle"


def copied(into: Path, number: int) -> Path:
    """The committed bundle with another digest: the weights differ, which serving does not use."""
    shutil.copytree(EXACT, into)
    with (into / bundle.WEIGHTS).open("ab") as file:
        file.write(bytes([number % 256]))
    return into


def scrambled(into: Path, seed: int, strength: float = 0.5) -> Path:
    """The committed bundle with noise on the graphs' matrices: it answers, and often wrongly."""
    copied(into, seed)
    rng = np.random.default_rng(seed)
    for operation in load_config(into).grammar.operations:
        path = into / bundle.decoder(operation)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 2:
                noise = rng.normal(0, strength * values.std(), values.shape)
                noisy = (values + noise).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
        onnx.save(model, path)
    return into


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


class Store:
    """A SQLite store with versions in it, and its aliases."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True)
        empty_store(root)
        self.client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
        self.client.create_registered_model(MODEL)
        place = (root / "mlartifacts").as_uri()
        self._experiment = self.client.create_experiment(EXPERIMENT, artifact_location=place)

    def register(self, folder: Path, errors: int = 0, **tags: str) -> str:
        """A version that holds the bundle, with a certificate that admits `errors`."""
        model = self.client.create_logged_model(self._experiment, MODEL)
        shutil.copytree(folder, _local(model.artifact_location) / BUNDLE_PATH)
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        told = {BUNDLE_TAG: bundle.digest(folder), "errors": str(errors), **tags}
        source = f"models:/{model.model_id}"
        # MLflow looks for the model in the store that is the process's own at this moment.
        with store.opened(self.root) as client:
            version = client.create_model_version(MODEL, source, tags=told, model_id=model.model_id)
        return str(version.version)

    def files(self, version: str) -> Path:
        """Where the store keeps a version's bundle."""
        source = str(self.client.get_model_version(MODEL, version).source)
        model = self.client.get_logged_model(source.removeprefix("models:/"))
        return _local(model.artifact_location) / BUNDLE_PATH

    def alias(self, version: str, name: str = ALIAS) -> None:
        self.client.set_registered_model_alias(MODEL, name, version)

    def aliased(self, name: str = ALIAS) -> str:
        return str(self.client.get_model_version_by_alias(MODEL, name).version)


class Service:
    """`python -m serving` on loopback, as its users see it."""

    def __init__(self, folder: Path, tracking_uri: str, **settings: str):
        self.port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(exist_ok=True)
        self.log = folder / f"service-{self.port}.log"
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MODEL_CACHE": str(folder / "cache"),
            "PORT": str(self.port),
            "WATCH_SECONDS": "0.1",
            "PULL_RETRY_SECONDS": "0.1",
            **settings,
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=self.url, timeout=10)

    def health(self) -> dict[str, Any]:
        result: dict[str, Any] = self.http.get("/health").json()
        return result

    def metrics(self) -> str:
        return self.http.get("/metrics").text

    def ask(self, equation: str) -> dict[str, Any]:
        answer = self.http.post("/predict", json={"equation": equation})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def ask_many(self, count: int, seed: int = 1) -> list[dict[str, Any]]:
        """Answers to `count` random equations with + and -."""
        drawn = random.Random(seed)
        return [
            self.ask(f"{drawn.randint(0, 999)}{drawn.choice('+-')}{drawn.randint(0, 999)}=")
            for _ in range(count)
        ]

    def until(self, true: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
        """/health once it is as asked; fails with what it was instead."""
        seen: Any = None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError, json.JSONDecodeError):
                seen = self.health()
                if true(seen):
                    return dict(seen)
            time.sleep(0.05)
        raise AssertionError(f"not so after {seconds} s: {seen}\n{self.log.read_text()}")

    def serves(self, version: str) -> dict[str, Any]:
        """/health once this version is served."""
        return self.until(lambda health: health["model_version"] == version)

    def stop(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def service(folder: Path, tracking_uri: str, **settings: str) -> Iterator[Service]:
    """A Service for as long as the block lasts."""
    running = Service(folder, tracking_uri, **settings)
    try:
        yield running
    finally:
        running.stop()
