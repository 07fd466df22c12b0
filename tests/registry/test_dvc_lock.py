"""Test reading YAML as DVC does, and the check of a workspace against dvc.lock."""

import dvc.api
import dvc.repo
import pytest
from dvc.utils.serialize import load_yaml

from registry.dvc_lock import check_workspace, md5, read_lock, read_yaml
from registry.exceptions import StaleWorkspaceError
from tests.registry.project import edit, make_project


def test_yaml_has_the_values_that_dvc_locks(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: 1e-05\nb: 1e-2\nc: 010\nd: ['+', '-']\ne: yes\nf: 0x10\ng: {h: .5, i: ~}\n")
    assert read_yaml(path) == load_yaml(str(path))
    assert read_yaml(path)["a"] == 0.00001
    assert read_yaml(path)["c"] == 10
    assert read_yaml(path)["e"] == "yes"


def test_md5_of_a_file_and_a_folder_is_dvcs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "folder" / "b" / "x.txt").write_text("x\r\n")
    (tmp_path / "folder" / "a.txt").write_text("ü")
    (tmp_path / "file").write_bytes(b"\x00\x01")
    repo = dvc.repo.Repo.init(no_scm=True)
    tracked = [stage.outs[0] for stage in repo.add(["folder", "file"])]
    repo.close()
    for out in tracked:
        assert md5(tmp_path / out.def_path) == out.hash_info.value


def test_workspace_that_agrees_with_its_lock_passes(project):
    lock = read_lock(project)
    check_workspace(project, lock)
    assert lock.params["generate.operations"] == ["+", "-"]
    assert lock.params["train.seed"] == 1
    assert sorted(lock.data) == ["data/test.csv", "data/train.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: edit(root / "params.yaml", '"max_operand": 9', '"max_operand": 99'), "99"),
        (lambda root: edit(root / "model/config.json", "9", "8"), r"model/config\.json"),
        (lambda root: (root / "model/decoders/stray").touch(), "model/decoders"),
        (lambda root: (root / "reports/evaluation.json").unlink(), "missing"),
        (lambda root: (root / "dvc.lock").unlink(), r"no .*dvc\.lock"),
        (lambda root: (root / "dvc.lock").write_text("stages: {train: {outs: 1}}"), "as DVC"),
    ],
)
def test_workspace_that_differs_from_its_lock_is_stale(project, change, message):
    change(project)
    with pytest.raises(StaleWorkspaceError, match=message) as raised:
        check_workspace(project, read_lock(project))
    assert "dvc repro" in raised.value.hint


def test_run_digest_ignores_the_register_stage_and_follows_the_others(project, tmp_path):
    digest = read_lock(project).digest
    edit(project / "dvc.lock", "stages.register", "stages.register --again")
    assert read_lock(project).digest == digest
    assert read_lock(make_project(tmp_path / "other", seed=2)).digest != digest
