"""Test the links from a version to its commit and data, and that a broken one is found."""

import shutil
from pathlib import Path

import pytest

from registry import DIGEST_TAG, MODEL_NAME
from registry.client import open_client
from registry.dvc_lock import read_lock
from registry.exceptions import BrokenLineageError, VersionNotFoundError
from registry.lineage import check_links
from registry.record import record
from tests.registry.project import edit, make_project
from tests.small_project import git


@pytest.fixture
def committed(store: Path, tmp_path: Path) -> Path:
    """Return a project in git whose run was recorded first and committed afterwards."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "hard_cases.csv").write_text("equation\n")
    (root / ".gitignore").write_text("/data/\n/model/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "Start")
    record(make_project(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "Train")
    return root


def lineage(*arguments) -> dict[str, bool]:
    """Return the links by their ends, and whether they were checked."""
    links: dict[str, bool] = {}
    for line in check_links(*arguments):
        mark, ends = line[0], line[2:22].strip()
        links[ends] = links.get(ends, True) and mark == "="
    return links


def test_every_link_of_a_committed_version_is_checked(committed):
    assert lineage(committed, "1") == dict.fromkeys(
        ["version -> model", "version -> run", "run -> dvc.lock", "dvc.lock -> commit",
         "commit -> code", "dvc.lock -> data"], True
    )  # fmt: skip


def test_uncommitted_experiment_and_missing_data_are_reported_as_unchecked(versions, tmp_path):
    git(tmp_path, "init", "-q", "elsewhere")
    links = lineage(tmp_path / "elsewhere", "2")
    assert not links["dvc.lock -> commit"]
    assert not links["dvc.lock -> data"]
    assert links["version -> run"]
    assert "commit -> code" not in links


def test_experiment_is_found_through_its_ref(committed):
    git(committed, "update-ref", "refs/exps/ab/cd/lower-rate", "HEAD")
    git(committed, "reset", "--hard", "-q", "HEAD~1")
    assert lineage(committed, "1")["dvc.lock -> commit"]


def test_lineage_starts_at_the_service_or_at_production(committed, serve_health):
    digest = open_client().get_model_version(MODEL_NAME, "1").tags[DIGEST_TAG]
    url = serve_health(model_version="1", model_digest=digest)
    assert lineage(committed, None, url)["answer -> version"]
    serve_health(model_version="1", model_digest="0" * 64)
    with pytest.raises(BrokenLineageError, match="answer -> version"):
        lineage(committed, None, url)
    with pytest.raises(VersionNotFoundError, match="no version with the alias Production"):
        lineage(committed)


def artifact(store: Path, name: str) -> Path:
    (path,) = store.glob(f"mlartifacts/*/artifacts/{name}")
    return path


def edit_code(root: Path, store: Path) -> None:
    (root / "hard_cases.csv").write_text("equation\n1+1=\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "--amend", "-m", "Other code, same lock")


def damage_cached_data(root: Path, store: Path) -> None:
    md5 = read_lock(root).data["data/train.csv"]
    cached = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_text("damaged")


def lose_run(root: Path, store: Path) -> None:
    client = open_client()
    client.delete_run(str(client.get_model_version(MODEL_NAME, "1").run_id))


@pytest.mark.parametrize(
    "break_link",
    [
        lambda _, store: edit(artifact(store, "reports/evaluation.json"), "200", "100"),
        lambda _, store: edit(artifact(store, "dvc.lock"), '"seed": 1', '"seed": 2'),
        edit_code,
        lose_run,
        damage_cached_data,
        lambda _, store: artifact(store, "dvc.lock").write_text("stages: ["),
        lambda _, store: artifact(store, "dvc.lock").unlink(),
        lambda _, store: shutil.rmtree(store / "mlartifacts" / "models"),
    ],
)
def test_broken_link_is_an_error(committed, store, break_link):
    break_link(committed, store)
    with pytest.raises(BrokenLineageError) as raised:
        lineage(committed, "1")
    assert raised.value.hint
