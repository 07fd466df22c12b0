"""What the tracking server does not take is kept, and delivered later: completely and once."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from registry import FILES_TAG, MODEL, deliver, inputs, owed, record, store, versions
from registry.errors import Owed, RegistryProblem, StaleWorkspace
from registry.recording import Recorded
from scripts import tracking_server
from tests import registry_fixtures

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(pipeline: Path, tmp_path: Path) -> Path:
    return registry_fixtures.fresh(pipeline, tmp_path)


def run_module(root: Path, module: str, uri: str | None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    if uri is not None:
        environment["MLFLOW_TRACKING_URI"] = uri
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def census(root: Path) -> dict[str, int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return versions.census(root)


def test_recordings_owed_to_a_server_that_was_down_are_delivered_when_it_is_back(
    root: Path, pipeline: Path, tmp_path: Path
) -> None:
    """Two of them, whose params, bundle and data are gone meanwhile, and a delivery that is killed.

    Each `make deliver` is a process of its own; the address is remembered.
    """
    port = tracking_server.free_port("127.0.0.1")
    uri = f"http://127.0.0.1:{port}"
    wanted = []
    for again in (False, True):
        if again:
            registry_fixtures.another_model(root)
        wanted.append(registry_fixtures.digest_of(root))
        said = run_module(root, "registry.record", uri)
        assert said.returncode == record.OWED, said.stderr
        (line,) = said.stderr.splitlines()
        assert line.startswith(f"owed: run {wanted[-1][0][:12]} (bundle {wanted[-1][1][:12]})")
        assert "no answer" in line
        assert "`make deliver`" in line
    assert run_module(root, "registry.record", uri).returncode == record.OWED
    assert len(owed.entries(root)) == 2, "repeating what is owed already is not owed twice"
    (root / "params.yaml").write_text("nothing: here any more\n")
    (root / "bundle" / "weights.safetensors").unlink()
    (root / "data" / "train.csv").unlink()

    undelivered = run_module(root, "registry.deliver", None)
    assert undelivered.returncode == record.OWED
    assert "waits for the one before it" in undelivered.stderr
    assert len(owed.entries(root)) == 2

    served = tmp_path / "served"
    served.mkdir()
    registry_fixtures.empty_store(served)
    with tracking_server.tracking_server(served, port=port):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AFTER_THE_VERSION],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": uri},
        )
        assert killed.returncode == 9
        assert len(owed.entries(root)) == 2
        delivered = run_module(root, "registry.deliver", None)
        assert delivered.returncode == 0, delivered.stderr
        assert len(delivered.stdout.splitlines()) == 2
        assert run_module(root, "registry.deliver", None).stdout == "nothing is owed\n"
        client = MlflowClient(uri)
        for number, (run_digest, bundle_sha256) in enumerate(wanted, 1):
            version = client.get_model_version(MODEL, str(number))
            assert version.tags["bundle_sha256"] == bundle_sha256
            run = client.get_run(str(version.run_id))
            assert run.data.tags["run_digest"] == run_digest
            assert run.data.tags["recorded"] == "yes"
            assert run.inputs is not None
            assert len(run.inputs.dataset_inputs) == 3
            assert run.data.params["train.seed"] == "1"
            files = {file.path for file in client.list_artifacts(run.info.run_id, "metrics")}
            assert inputs.ARTIFACT in files, "what the training questions were like is owed too"
    assert census(served) == {"recorded": 2, "unfinished": 0, "versions": 2, "incomplete": 0}


KILLED_AFTER_THE_VERSION = """
import os, pathlib
from registry import deliver, recording
recording._certify = lambda *_: os._exit(9)
deliver.deliver(pathlib.Path.cwd())
"""


def dying(original: Any, server: "subprocess.Popen[bytes]") -> Any:
    """A step before which the server is killed."""

    def step(*arguments: Any, **options: Any) -> Any:
        os.killpg(server.pid, 9)
        server.wait()
        return original(*arguments, **options)

    return step


def test_a_server_that_dies_in_the_middle_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while files are uploaded, and before the version is made."""
    served = tmp_path / "served"
    served.mkdir()
    registry_fixtures.empty_store(served)
    port = tracking_server.free_port("127.0.0.1")
    uri, server = tracking_server.start(served, port=port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        for count, name in enumerate(["log_model_artifacts", "create_model_version"], 1):
            registry_fixtures.another_model(root)
            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name), server))
                with pytest.raises(Owed, match="`make deliver` delivers it"):
                    record.record_or_keep(root)
            assert len(owed.entries(root)) == 1
            uri, server = tracking_server.start(served, port=port)
            done = deliver.deliver(root)
            assert not done.failed
            assert [one.version for one in done.done] == [str(count)]
    finally:
        tracking_server.end(server)
    assert census(served) == {"recorded": 2, "unfinished": 0, "versions": 2, "incomplete": 0}


def test_the_next_recording_delivers_what_is_owed_before_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order counts: a bundle's certificate is its latest evaluation."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = (root / "mlflow.db").read_bytes()
    (root / "mlflow.db").write_bytes(b"out of order for a while, and no database either" * 3)
    with pytest.raises(Owed, match="does not open"):
        record.record_or_keep(root)
    registry_fixtures.with_errors(root, 2)
    (root / "mlflow.db").write_bytes(database)
    earlier: list[Recorded] = []
    done = record.record_or_keep(root, earlier.append)
    assert [one.version for one in earlier] == [done.version] == ["1"]
    version = MlflowClient(store.default_uri(root)).get_model_version(MODEL, "1")
    assert version.tags["errors"] == "2"
    assert FILES_TAG in version.tags
    assert owed.entries(root) == []
    assert list((root / owed.FOLDER).iterdir()) == []


def test_a_damaged_copy_is_named_and_never_delivered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept recording lies on a disk for days: it is checked like anything else."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Owed):
        record.record_or_keep(root)
    (entry,) = owed.entries(root)
    weights = entry.folder / "bundle" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    says = r"is damaged .*weights\.safetensors .* delete"
    with pytest.raises(RegistryProblem, match=says), owed.opened(entry):
        pass


def test_files_that_are_wrong_are_refused_and_not_owed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"]["seed"] = 4711
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(StaleWorkspace):
        record.record_or_keep(root)
    assert owed.entries(root) == []


def test_no_room_to_keep_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the folder should be stands for any disk that refuses."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (root / owed.FOLDER).write_text("in the way")
    with pytest.raises(RegistryProblem, match=r"cannot be kept in .*\.owed"):
        record.record_or_keep(root)
