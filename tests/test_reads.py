"""What a stage read is noted, and an edit while it works is not recorded as its input."""

import stages  # noqa: I001

import json
from pathlib import Path

import pytest
import yaml

from arithmetic.checksum import md5
from arithmetic.errors import InvalidParams, Problem
from benchmarks.small import params as small_params
from stages.params import validate
from stages.reads import noted

PARAMS = validate(small_params())
DESCRIPTION = "stages: {export: {deps: [code.py, graphs], params: [export, train.seed]}}"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DESCRIPTION)
    (tmp_path / "code.py").write_text("old")
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "one.onnx").write_bytes(b"1")
    return tmp_path


def test_digests_and_params_are_noted(project):
    with noted("export", PARAMS, Path("metrics/reads/export.json")):
        pass
    found = json.loads((project / "metrics/reads/export.json").read_text())
    assert found == {
        "params": [{"key": "export", "value": {"opset": 17}}, {"key": "train.seed", "value": 1}],
        "files": [
            {"path": "code.py", "md5": md5(project / "code.py")},
            {"path": "graphs", "md5": md5(project / "graphs")},
        ],
    }


@pytest.mark.parametrize("name", ["code.py", "graphs/one.onnx"])
def test_an_edit_meanwhile_is_refused_by_name(project, name):
    note = Path("reads.json")
    with (
        pytest.raises(Problem, match=f"{name.split('/')[0]} was changed while export ran"),
        noted("export", PARAMS, note),
    ):
        (project / name).write_text("new")
    assert not note.exists()


def test_an_edit_is_refused_before_anything_is_written(project):
    with noted("export", PARAMS, Path("reads.json")) as check:
        check()
        (project / "code.py").write_text("new")
        with pytest.raises(Problem, match=r"code\.py was changed while export ran"):
            check()
        (project / "code.py").write_text("old")


def test_an_orphan_writes_nothing(project, monkeypatch):
    """Another `dvc repro` may have written its own outputs by now."""
    work = noted("export", PARAMS, Path("reads.json"))
    check = work.__enter__()
    monkeypatch.setenv("DVC_STAGE", "export")
    monkeypatch.setattr(stages, "_PARENT", 1 << 22)
    with pytest.raises(Problem, match="dvc is gone"):
        check()
    with pytest.raises(Problem, match="dvc is gone"):
        work.__exit__(None, None, None)
    assert not Path("reads.json").exists()


def test_a_stage_that_dvc_does_not_know_is_said_so(project):
    with (
        pytest.raises(InvalidParams, match="does not describe the stage train"),
        noted("train", PARAMS, Path("reads.json")),
    ):
        pass
    (project / "code.py").unlink()
    with (
        pytest.raises(InvalidParams, match=r"code\.py cannot be read"),
        noted("export", PARAMS, Path("reads.json")),
    ):
        pass


def test_the_pipeline_notes_what_dvc_lock_says(pipeline):
    """Every stage, and for every dependency the value that DVC hashed."""
    lock = yaml.safe_load((pipeline / "dvc.lock").read_text())["stages"]
    for stage in ("generate", "train", "export", "evaluate"):
        found = json.loads((pipeline / f"metrics/reads/{stage}.json").read_text())
        files = {entry["path"]: entry["md5"] for entry in found["files"]}
        params = {entry["key"]: entry["value"] for entry in found["params"]}
        assert files == {dep["path"]: dep["md5"] for dep in lock[stage]["deps"]}
        assert params == lock[stage]["params"]["params.yaml"]
