"""Two at once, and a disk that is full: never two versions for one digest, nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry import MODEL, claims, owed, promote, pull, record, store, versions
from registry.errors import RegistryProblem
from scripts.tracking_server import tracking_server
from tests import registry_fixtures

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def root(pipeline: Path, tmp_path: Path) -> Path:
    return registry_fixtures.fresh(pipeline, tmp_path)


def recording(root: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "registry.record"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_clones_that_record_the_same_at_once_make_one_version(
    root: Path, tmp_path: Path
) -> None:
    """They share nothing but the server: no lock, no disk."""
    other, served = tmp_path / "other", tmp_path / "served"
    shutil.copytree(root, other)
    served.mkdir()
    registry_fixtures.empty_store(served)
    with tracking_server(served) as uri:
        both = [recording(place, MLFLOW_TRACKING_URI=uri) for place in (root, other)]
        said = [process.communicate(timeout=400) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
    assert not owed.entries(root)
    assert not owed.entries(other)
    counts = {"recorded": 1, "unfinished": 0, "versions": 1, "incomplete": 0}
    assert versions.census(served) == counts
    assert sorted("already recorded" in out for out, _ in said) == [False, True]


def test_a_second_version_of_a_digest_is_deleted_unless_it_is_served(root: Path) -> None:
    """What a clone killed between creating and looking again left behind."""
    done = record.record(root)
    with store.opened(root) as client:
        first = client.get_model_version(MODEL, "1")
        for _ in range(2):
            client.create_model_version(MODEL, source=str(first.source), tags=dict(first.tags))
        client.set_registered_model_alias(MODEL, "Production", "3")
        assert claims.only_version(client, done.bundle_sha256).version == first.version
    assert versions.numbers(root) == {"1", "3"}


def test_a_dead_clone_s_recording_is_taken_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run shows no sign of life: after a while another clone finishes it."""
    monkeypatch.setattr(claims, "DEAD_AFTER_SECONDS", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "clone_of", lambda _: "elsewhere")
        patch.setattr(claims, "sign_of_life", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            record.record(root)
    counts = {"recorded": 1, "unfinished": 0, "versions": 1, "incomplete": 0}
    assert record.record(root).new_version
    assert versions.census(root) == counts


def test_two_dvc_repro_at_once_stop_with_a_clear_word(pipeline: Path, tmp_path: Path) -> None:
    """DVC has a lock of its own; its message has to say what is wrong."""
    root = tmp_path / "checkout"
    shutil.copytree(pipeline, root, symlinks=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (root / "dvc.yaml").write_text(
        f"stages:\n  wait:\n    cmd: echo begun; cat {fifo} > made\n    outs: [made]\n"
    )
    (root / "dvc.lock").unlink()
    command = [sys.executable, "-m", "dvc", "repro"]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    first = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while "begun" not in first.stdout.readline():
        assert first.poll() is None
    second = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    fifo.write_text("go on")
    first.communicate(timeout=60)
    assert second.returncode != 0
    assert "made' is busy" in second.stderr
    assert "blocked by" in second.stderr
    assert "PID" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 8 MB: a real one, that refuses like any other when it is full."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_under_the_store_is_one_sentence_and_the_version_before_stays(
    root: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording; then with room again it is completed."""
    database = f"sqlite:///{small_disk}/mlflow.db"
    shutil.copyfile(root / "mlflow.db", small_disk / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    first = record.record(root)
    registry_fixtures.another_model(root)
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * max(0, free(small_disk) - 4096))
    with pytest.raises(RegistryProblem, match=r"No space left on device"):
        record.record(root)
    filler.unlink()
    assert versions.numbers(root) == {"1"}
    with store.opened(root) as client:
        versions.check_files(client, client.get_model_version(MODEL, "1"))
    again = record.record(root)
    assert (first.version, again.version, again.new_version) == ("1", "2", True)


def test_a_full_disk_stops_a_promotion_and_production_stays(
    root: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room again the same call promotes."""
    shutil.copyfile(root / "mlflow.db", small_disk / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{small_disk}/mlflow.db")
    record.record(root)
    registry_fixtures.another_model(root)
    record.record(root)
    why = "the small model is not exact"
    promote.promote("1", root, override=why)
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * free(small_disk))
    with pytest.raises(RegistryProblem, match=r"No space left on device"):
        promote.promote("2", root, override=why)
    assert promote.production(root) == "1"
    filler.unlink()
    assert promote.promote("2", root, override=why).previous == "1"
    assert promote.production(root) == "2"


def test_a_full_disk_under_a_service_s_cache_is_one_sentence(
    root: Path, small_disk: Path, tmp_path: Path
) -> None:
    """And nothing half-written is left for it to load."""
    record.record(root)
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * (free(small_disk) - 8192))
    with tracking_server(root) as uri:
        with pytest.raises(RegistryProblem, match="No space left on device"):
            pull.pull(f"models:/{MODEL}/1", uri, small_disk)
        assert list(small_disk.iterdir()) == [filler]
        filler.unlink()
        assert pull.pull(f"models:/{MODEL}/1", uri, small_disk).version == "1"


def free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
