"""registry.record: files to one run and one version, however often and however interrupted."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from registry import (
    BUNDLE_TAG,
    EXPERIMENT,
    MODEL,
    models,
    projection,
    record,
    signature,
    signing,
    store,
    workspace,
)
from registry import versions as versions_module
from registry.errors import (
    DigestMismatch,
    RegistryProblem,
    RegistryUnreachable,
    StaleWorkspace,
    shown,
)
from tests import registry_fixtures

REPOSITORY = Path(__file__).resolve().parents[1]
# Killed while the model's files are uploaded: a run and a model exist, neither is complete.
KILLED_IN_UPLOAD = """
import os, pathlib
from mlflow import MlflowClient
from registry import record
MlflowClient.log_model_artifacts = lambda *_, **__: os._exit(9)
record.record(pathlib.Path.cwd())
"""


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


@pytest.fixture
def root(pipeline: Path, tmp_path: Path) -> Path:
    return registry_fixtures.fresh(pipeline, tmp_path)


def dying(*_: Any) -> None:
    raise KeyboardInterrupt


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(store.default_uri(root))


def experiment_id(root: Path) -> str:
    found = client_of(root).get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return str(found.experiment_id)


def runs(root: Path) -> list[Any]:
    return list(client_of(root).search_runs([experiment_id(root)]))


def versions(root: Path) -> list[Any]:
    return list(client_of(root).search_model_versions(f"name = '{MODEL}'"))


def test_a_finished_pipeline_is_recorded_whole(root: Path) -> None:
    """`mlflow ui` compares runs by these: every param, curve, figure, data set, picture and tag."""
    done = record.record(root)
    assert (done.new_run, done.new_version) == (True, True)
    client = client_of(root)
    run = client.get_run(done.run_id)
    assert run.info.status == "FINISHED"

    found = workspace.read(root)
    assert found.params
    assert set(run.data.params) == set(found.params)
    evaluation = json.loads((root / "metrics" / "evaluation.json").read_text())
    assert run.data.metrics["errors"] == evaluation["errors"]
    plus = evaluation["by_operation"]["+"]["exact_match"]
    assert run.data.metrics["by_operation.plus.exact_match"] == plus
    assert run.data.metrics["test.exact_match"] == evaluation["test"]["exact_match"]
    history = (root / "metrics" / "history.csv").read_text().splitlines()
    curve = client.get_metric_history(done.run_id, "learning_rate")
    assert len({point.step for point in curve}) == len(history) - 1

    assert run.inputs is not None
    names = {dataset.dataset.name for dataset in run.inputs.dataset_inputs}
    assert names == {"train", "validation", "test"}
    digests = {dataset.dataset.digest for dataset in run.inputs.dataset_inputs}
    assert digests == set(found.data.values())

    tags = run.data.tags
    assert tags["run_digest"] == found.run_digest
    assert tags[BUNDLE_TAG] == done.bundle_sha256 == found.bundle_sha256
    for name in ("git_commit", "git_dirty", "data_digest", "dvc_lock_sha256"):
        assert tags[name]

    files = {item.path for item in client.list_artifacts(done.run_id)}
    assert {"dvc.lock", "params.yaml", "metrics", "plots"} <= files
    pictures = {item.path for item in client.list_artifacts(done.run_id, "plots")}
    assert pictures == {"plots/exact_match_by_length.png", "plots/loss_curve.png"}

    [version] = versions(root)
    assert version.tags[BUNDLE_TAG] == done.bundle_sha256
    assert json.loads(version.tags["certificate"])["run_id"] == done.run_id
    stored = [path.name for path in (root / "mlartifacts").rglob("*")]
    assert "decoders" in stored
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".pyc"))]
    assert "model.py" not in stored, "the version carries training code"


def test_recording_again_adds_nothing_and_says_so_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`record` runs at every `dvc repro`; and MLflow's own messages stay out of the pipeline's."""
    monkeypatch.chdir(root)
    record.main()
    first = capfd.readouterr()
    record.main()
    second = capfd.readouterr()
    assert first.err == second.err == ""
    assert len(first.out.splitlines()) == len(second.out.splitlines()) == 1
    assert "version 1" in first.out
    assert second.out.startswith("already recorded")
    assert len(runs(root)) == len(versions(root)) == 1


@pytest.mark.parametrize("step", ["fill", "log_model", "version", "end"])
def test_an_interrupted_recording_is_completed(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Ctrl-C at any moment: no second run, no version without its digest, no doubled points."""
    place: Any = {"fill": projection, "log_model": models}.get(step, MlflowClient)
    name = {"version": "create_model_version", "end": "set_terminated"}.get(step, step)
    original = getattr(place, name)

    def interrupted(*arguments: Any, **options: Any) -> None:
        if step == "fill":
            original(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            record.record(root)
    done = record.record(root)

    assert [run.info.run_id for run in runs(root)] == [done.run_id]
    [version] = versions(root)
    assert version.tags[BUNDLE_TAG] == done.bundle_sha256
    points = client_of(root).get_metric_history(done.run_id, "learning_rate")
    assert len(points) == len({point.step for point in points})
    assert len(client_of(root).search_logged_models([experiment_id(root)])) == 1
    assert not record.record(root).new_run


def test_a_killed_recording_is_completed(root: Path) -> None:
    """As above with a process that had no chance to tidy up."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_UPLOAD], cwd=root, env=environment)
    assert killed.returncode == 9
    done = record.record(root)
    assert [run.info.run_id for run in runs(root)] == [done.run_id]
    [model] = client_of(root).search_logged_models([experiment_id(root)])
    assert model.status == "READY"
    assert len(versions(root)) == 1


def test_recordings_at_the_same_time_wait_for_each_other(root: Path) -> None:
    """`dvc exp run --jobs 2` ends two pipelines at once: still one run and one version of each."""
    results: list[record.Recorded] = []
    threads = [
        threading.Thread(target=lambda: results.append(record.record(root))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.new_run for result in results) == [False, True]
    assert len(runs(root)) == len(versions(root)) == 1


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed while MLflow makes its tables, a process leaves no store that cannot be opened."""
    code = (
        "import os, sqlite3, sys, threading, time; from pathlib import Path;"
        "from registry import store;"
        "root = Path(sys.argv[1]);"
        "busy = lambda: any(p.stat().st_size for p in root.glob('mlflow.db.*.draft'));"
        "watch = lambda: [time.sleep(0.001) for _ in iter(busy, True)] and os._exit(9);"
        "threading.Thread(target=watch, daemon=True).start();"
        "store.opened(root).__enter__()"
    )
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "mlflow.db").exists()
    with store.opened(tmp_path) as client:
        assert client.search_experiments()
    assert {path.name for path in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_the_same_bundle_evaluated_again_adds_its_certificate(root: Path) -> None:
    """A new evaluation of an old model is a new run and no new model."""
    first = record.record(root)
    registry_fixtures.with_errors(root, 2)
    second = record.record(root)
    assert second.run_id != first.run_id
    assert (second.version, second.new_version, second.new_certificate) == ("1", False, True)
    [version] = versions(root)
    assert version.tags["errors"] == "2"
    assert json.loads(version.tags["certificate"])["run_id"] == second.run_id
    assert len(runs(root)) == 2


def test_another_bundle_is_another_version_and_the_first_is_found_again(root: Path) -> None:
    """Changing a param back gives no third version."""
    kept = root.parent / "kept"
    first = record.record(root)
    shutil.copytree(root, kept, ignore=shutil.ignore_patterns("ml*", ".dvc"))
    registry_fixtures.another_model(root)
    assert record.record(root).version == "2"
    shutil.copytree(kept, root, dirs_exist_ok=True)
    back = record.record(root)
    assert (back.run_id, back.version, back.new_run) == (first.run_id, "1", False)
    assert len(versions(root)) == 2
    assert record.version_of(first.bundle_sha256, root) == "1"
    assert record.version_of("0" * 64, root) is None


def test_a_lost_store_is_made_again_from_the_files(root: Path) -> None:
    """Files are the truth: numbers and ids may differ, digests do not."""
    first = record.record(root)
    digest = runs(root)[0].data.tags["run_digest"]
    elsewhere = registry_fixtures.fresh(root, root.parent / "elsewhere")
    again = record.record(elsewhere)
    assert again.run_id != first.run_id
    assert again.bundle_sha256 == first.bundle_sha256
    assert runs(elsewhere)[0].data.tags["run_digest"] == digest


def test_files_that_dvc_lock_does_not_know_are_not_recorded(root: Path) -> None:
    """A record says which files made a model; a false one is worse than none."""
    (root / "bundle" / "weights.safetensors").write_bytes(b"edited")
    with pytest.raises(StaleWorkspace, match=r"bundle\S* differs from dvc\.lock .*run `dvc"):
        record.record(root)
    (root / "bundle" / "weights.safetensors").unlink()
    with pytest.raises(StaleWorkspace, match="bundle"):
        record.record(root)
    assert client_of(root).get_experiment_by_name(EXPERIMENT) is None


def test_params_edited_since_are_not_recorded(root: Path) -> None:
    """The run's params are those that its stages used."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"]["seed"] = 4711
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(StaleWorkspace, match=r"train\.seed is 4711 in params\.yaml"):
        record.record(root)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("params.yaml", b"train: \xff", r"params\.yaml is not UTF-8"),
        ("params.yaml", b"- a list", r"params\.yaml is no mapping"),
        ("dvc.lock", b"stages: [train]", r"dvc\.lock is not as DVC writes it"),
        ("dvc.lock", b"stages: {train: {outs: [{path: x}]}}", r"dvc\.lock is not as DVC writes"),
    ],
)
def test_a_damaged_file_of_the_project_is_one_sentence(
    root: Path, name: str, content: bytes, says: str
) -> None:
    (root / name).write_bytes(content)
    with pytest.raises(StaleWorkspace, match=says):
        record.record(root)


def test_a_store_that_is_no_database_is_one_sentence(root: Path) -> None:
    (root / "mlflow.db").write_bytes(b"no database at all, and longer than a header of SQLite is")
    with pytest.raises(RegistryUnreachable, match=r"does not open .* move the file away"):
        record.record(root)


def test_artifacts_that_were_lost_are_put_back(root: Path) -> None:
    """mlflow.db alone says that all is there: the next recording looks, and mends."""
    first = record.record(root)
    shutil.rmtree(root / "mlartifacts")
    again = record.record(root)
    assert (again.run_id, again.version, again.restored) == (first.run_id, "1", True)
    with store.opened(root) as client:
        version = client.get_model_version(MODEL, "1")
        versions_module.check_files(client, version)
        assert versions_module.certificate_of(version).complete
    assert not record.record(root).restored
    [model] = (root / "mlartifacts").rglob("MLmodel")
    model.unlink()
    assert record.record(root).restored


def test_a_run_whose_dvc_lock_was_lost_can_be_traced_again(root: Path) -> None:
    """DVC rewrites the entry of `record` in dvc.lock: what is put back has other bytes."""
    done = record.record(root)
    [lock] = (root / "mlartifacts").rglob("dvc.lock")
    lock.unlink()
    with (root / "dvc.lock").open("a") as file:
        file.write("# as DVC writes it after the recording\n")
    assert record.record(root).restored
    run = client_of(root).get_run(done.run_id)
    assert run.data.tags["dvc_lock_sha256"] == hashlib.sha256(lock.read_bytes()).hexdigest()
    assert not record.record(root).restored


def test_a_version_is_signed_as_soon_as_a_key_is_configured(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays so: what is put back without the key would be unsigned, so it is not put back."""
    record.record(root)
    private, public = signing.make_keys(tmp_path / "pair")
    key = signature.load_key(public)
    monkeypatch.setenv(signing.VARIABLE, str(private))
    done = record.record(root)
    assert done.signed
    assert "signed by SIGNING_KEY now" in str(done)
    assert not record.record(root).signed
    [sig] = (root / "mlartifacts").rglob("bundle.sig")
    signature.verify(sig.with_name("bundle"), sig, key)
    with store.opened(root) as client:
        versions_module.check_files(client, client.get_model_version(MODEL, "1"))

    monkeypatch.delenv(signing.VARIABLE)
    assert not record.record(root).signed
    sig.unlink()
    with pytest.raises(RegistryProblem, match=r"bundle\.sig is missing .* set SIGNING_KEY"):
        record.record(root)
    monkeypatch.setenv(signing.VARIABLE, str(private))
    assert record.record(root).restored
    signature.verify(sig.with_name("bundle"), sig, key)

    other, public = signing.make_keys(tmp_path / "other")
    monkeypatch.setenv(signing.VARIABLE, str(other))
    assert record.record(root).signed
    signature.verify(sig.with_name("bundle"), sig, signature.load_key(public))


def test_a_model_left_unsigned_by_an_interrupted_recording_is_signed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.record(root)
    client_of(root).delete_model_version(MODEL, "1")
    private, public = signing.make_keys(tmp_path / "pair")
    monkeypatch.setenv(signing.VARIABLE, str(private))
    assert record.record(root).version == "2"
    [sig] = (root / "mlartifacts").rglob("bundle.sig")
    signature.verify(sig.with_name("bundle"), sig, signature.load_key(public))


def test_an_edited_digest_is_not_taken_for_a_missing_version(root: Path) -> None:
    record.record(root)
    client_of(root).set_model_version_tag(MODEL, "1", BUNDLE_TAG, "abc")
    with pytest.raises(DigestMismatch, match=r"version 1 .* says abc: it was edited"):
        record.record(root)
    assert len(versions(root)) == 1


@pytest.mark.parametrize("way", ["..", "%2e%2e"])
def test_files_that_only_seem_to_lie_in_the_store_are_refused(
    root: Path, tmp_path: Path, way: str
) -> None:
    record.record(root)
    [folder] = (root / "mlartifacts" / "models").glob("*/artifacts")
    shutil.copytree(folder, tmp_path / "elsewhere")
    place = f"{(root / 'mlartifacts').as_uri()}/{way}/{way}/elsewhere"
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("UPDATE logged_models SET artifact_location = ?", (place,))
    with store.opened(root) as client:
        version = client.get_model_version(MODEL, "1")
        with pytest.raises(RegistryProblem, match="outside of the store's own place"):
            versions_module.check_files(client, version)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mysql://x:secret@host/y", "mysql://host/y, which cannot be used here"),
        ("sqlite:/x", "sqlite:/x, which cannot be used here"),
        ("xyz://a", "xyz://a answered"),
    ],
)
def test_an_address_that_is_no_store_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, uri: str, says: str
) -> None:
    """And a problem of the store, so that the recording is kept."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(RegistryProblem, match=says), store.opened(root) as client:
        client.search_experiments()


def test_an_opened_store_leaves_no_trace_in_the_environment(root: Path) -> None:
    """Also one within another, as a trace within a test of it."""
    with store.opened(root), store.opened(root):
        pass
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_options_of_a_database_are_no_part_of_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db?timeout=10")
    assert record.record(root).new_version
    assert (root / "mlartifacts").is_dir()


def test_a_folder_in_place_of_the_store_is_named(root: Path) -> None:
    (root / "mlflow.db").unlink()
    (root / "mlflow.db").mkdir()
    with pytest.raises(RegistryUnreachable, match=r"mlflow\.db does not open .* move the file"):
        record.record(root)


def test_a_param_of_the_gate_may_change_while_a_run_is_being_recorded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's params cannot be changed, and the gate's are none of the run's."""
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", dying)
        with pytest.raises(KeyboardInterrupt):
            record.record(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promote"] = {"max_errors": 5}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    done = record.record(root)
    assert client_of(root).get_run(done.run_id).data.tags["recorded"] == "yes"


def test_a_stray_file_in_the_bundle_is_no_part_of_the_version(root: Path) -> None:
    """It would be signed, and no service takes a signature over other files than the bundle's."""
    (root / "bundle" / ".DS_Store").write_bytes(b"a file manager's")
    record.record(root)
    assert not list((root / "mlartifacts").rglob(".DS_Store"))


def test_an_evaluation_of_another_bundle_is_not_recorded(root: Path) -> None:
    registry_fixtures.evaluated(root, bundle_sha256="0" * 64)
    with pytest.raises(StaleWorkspace, match=r"evaluation\.json is of bundle 000000000000"):
        record.record(root)


def test_artifacts_that_were_changed_are_refused(root: Path) -> None:
    """Whoever changed them is to be found, and not to be covered up."""
    record.record(root)
    [model] = (root / "mlartifacts").rglob("MLmodel")
    model.write_text(model.read_text() + "\n")
    with pytest.raises(DigestMismatch, match=r"version 1: its file MLmodel has digest"):
        record.record(root)


def test_outside_a_pipeline_the_sentence_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(StaleWorkspace, match=r"dvc\.lock cannot be read .* run `dvc repro`"):
        record.record(tmp_path)


def test_the_digest_of_a_run_leaves_the_recording_stage_out(root: Path) -> None:
    """Else the identity of a run would change by recording it; and params, deps, outs all count."""
    before = workspace.read(root).run_digest
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    lock["stages"]["record"] = {"cmd": "something else", "deps": []}
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert workspace.read(root).run_digest == before
    registry_fixtures.with_errors(root, 1)
    assert workspace.read(root).run_digest != before


def test_names_of_metrics_are_ones_that_mlflow_accepts() -> None:
    """Operators are keys of the metrics files, and MLflow refuses `+`."""
    nested = {"by_operation": {"+": {"errors": 1}, "÷": {"errors": 2}}, "complete": True, "x": "no"}
    assert workspace.metrics(nested) == {
        "by_operation.plus.errors": 1.0,
        "by_operation.over.errors": 2.0,
        "complete": 1.0,
    }


def test_a_lost_server_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback and no half minute of retries for a server that is not running."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryUnreachable, match=r"no answer .* http://127\.0\.0\.1:9; start it"):
        record.record(root)
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as stopped:
        record.main()
    assert stopped.value.code == record.OWED
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("owed: run ")
    assert "`make deliver`" in said


def test_the_store_is_the_main_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder below, and from the copies in which DVC runs experiments."""
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    for folder in (tmp_path, copy):
        (folder / "data").mkdir(parents=True)
        (folder / "dvc.yaml").write_text("stages: {}\n")
    for folder in (tmp_path, tmp_path / "data", copy, copy / "data"):
        assert store.tracking_uri(folder) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.chdir(tmp_path / "data")
    assert store.root() == tmp_path.resolve()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store.tracking_uri() == "http://tracking:5000"
    assert store.artifact_location() is None


def test_the_version_is_an_ordinary_mlflow_model(root: Path, tmp_path: Path) -> None:
    """`mlflow models predict` works from anywhere, with exact pins and without torch or this code.

    A torch that cannot be imported stands first in the path.
    """
    done = record.record(root)
    client_of(root).set_registered_model_alias(MODEL, "Production", done.version)
    away = tmp_path / "away"
    away.mkdir()
    (away / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    (away / "input.json").write_text(
        json.dumps({"dataframe_split": {"columns": ["equation"], "data": [["1+1="], ["9-3="]]}})
    )
    command = (
        f"{Path(sys.executable).parent / 'mlflow'} models predict -m models:/{MODEL}@Production "
        "--env-manager local -i input.json -o output.json"
    )
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store.default_uri(root),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": str(away),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ran = subprocess.run(command.split(), cwd=away, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    answers = json.loads((away / "output.json").read_text())["predictions"]
    assert [set(answer) for answer in answers] == [{"answer"}, {"answer"}]

    [pins] = (root / "mlartifacts").rglob("requirements.txt")
    assert all("==" in line for line in pins.read_text().split())
    [model] = (root / "mlartifacts").rglob("MLmodel")
    content = yaml.safe_load(model.read_text())
    assert json.loads(content["signature"]["inputs"])[0]["name"] == "equation"
    assert json.loads(content["signature"]["outputs"])[0]["name"] == "answer"
    assert content["saved_input_example_info"]
    assert "python_model" not in content["flavors"]["python_function"]


def test_a_store_named_by_a_database_is_the_one_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service talks to servers: `make serve` and `make run` start one over what is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    with pytest.raises(RegistryProblem, match=r"there is no .*mine\.db yet"):
        store.database_to_serve(tmp_path)
    (tmp_path / "mine.db").touch()
    assert store.database_to_serve(tmp_path) == f"sqlite:///{tmp_path.resolve()}/mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:p@localhost/mlflow")
    assert store.database_to_serve(tmp_path) == "postgresql://u:p@localhost/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store.database_to_serve(tmp_path) is None
    assert shown("http://user:secret@host:5000/x") == "http://host:5000/x"
    assert shown("http://user:p@ss@host:5000/x") == "http://host:5000/x"
