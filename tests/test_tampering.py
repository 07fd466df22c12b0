"""What was tampered with is refused by name, at every door; and a healthy chain is traced whole."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from arithmetic.errors import Problem
from benchmarks import tampering
from benchmarks.small import git
from registry import MODEL, store, trace
from registry.errors import BrokenLink, VersionNotFound

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def house(pipeline: Path, scratch: Path) -> Iterator[tampering.House]:
    root = scratch / "small"
    shutil.copytree(pipeline, root, symlinks=True)
    with tampering.built(root, scratch) as house:
        yield house


@pytest.fixture
def clone(house: tampering.House, tmp_path: Path) -> Path:
    """A copy of the house's repository with its store, which a test may change."""
    shutil.copytree(house.root, tmp_path / "clone", symlinks=True)
    return tmp_path / "clone"


def test_a_healthy_chain_is_traced_from_the_service_to_the_code(house: tampering.House) -> None:
    """`make trace`: Production, as the service says it, down to the files of its commit."""
    links = list(trace.trace(house.root, None, house.address, house.trusted_key))
    assert [link.name for link in links] == [
        "service → version",
        "version → files",
        "version → bundle",
        "bundle → signature",
        "version → run",
        "run → dvc.lock",
        "dvc.lock → params",
        "dvc.lock → outputs",
        "outputs → metrics",
        "dvc.lock → data",
        "data → files",
        "commit → dvc.lock",
        "dvc.lock → code",
    ]
    assert not any(link.reservation for link in links)
    head = git(house.root, "rev-list", "--max-parents=0", "HEAD").strip()
    assert links[-2].says.split()[0] != head, "the first commit has no dvc.lock"


def test_the_command_line(house: tampering.House) -> None:
    """Exit status 0 and a line a link; 1 and both values where the service serves another."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SERVICE_URL": house.address}

    def traced(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "registry.trace", *arguments]
        return subprocess.run(
            command, cwd=house.root, env=environment, capture_output=True, text=True
        )

    whole = traced()
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.splitlines()[-1] == "13 links hold"
    other = traced("2")
    assert other.returncode == 1
    assert "serves version 1 with bundle" in other.stderr
    assert "version 2 has bundle" in other.stderr
    assert traced("99").returncode == 1


def test_every_tampering_is_refused_at_every_door(house: tampering.House, scratch: Path) -> None:
    """`make tampering` itself: it raises at the first door that lets something through.

    The committed table has the same rows, so the figures in the documents are this test's.
    """
    tried = tampering.try_all(house, scratch)
    committed = json.loads((REPOSITORY / "benchmarks/results/tampering.json").read_text())
    found = [(one.tampering, one.door, one.outcome) for one in tried]
    assert found == [(one["tampering"], one["door"], one["outcome"]) for one in committed["tried"]]


def test_the_documented_figures_are_the_committed_ones() -> None:
    committed = json.loads((REPOSITORY / "benchmarks/results/tampering.json").read_text())
    text = (REPOSITORY / "docs" / "reproducibility.md").read_text(encoding="utf-8")
    sentence = (
        f"{committed['tamperings']} tamperings, {committed['doors_tried']} attempts: "
        f"{committed['refused']} refused by name, {committed['harmless_there']} without effect"
    )
    assert sentence in " ".join(text.split())


def test_a_door_that_lets_something_through_would_be_noticed(house: tampering.House) -> None:
    """The check of the check: a tampering that is none."""
    nothing = tampering.Tampering("nothing at all", nullcontext, {"trace": "anything"}, {})
    with pytest.raises(Problem, match="went through trace"):
        tampering.attempt(house, nothing, "trace")


def test_a_rewritten_history_breaks_the_chain(clone: Path) -> None:
    """Code, dvc.lock or the commit itself: what is recorded has to be in the repository."""
    with store.opened(clone) as client:
        version = client.get_model_version(MODEL, "2")
        run = client.get_run(str(version.run_id))
        first = git(clone, "rev-list", "--max-parents=0", "HEAD").strip()
        own = run.data.tags["git_commit"]
        for commit, says in (
            (first, "clean tree with a dvc.lock"),
            ("0" * 40, "not in this repository"),
        ):
            client.set_tag(run.info.run_id, "git_commit", commit)
            with pytest.raises(BrokenLink, match=says):
                list(trace.trace(clone, "2"))
        client.set_tag(run.info.run_id, "git_commit", first)
        client.set_tag(run.info.run_id, "git_dirty", "yes")
        later = list(trace.trace(clone, "2"))[-2]
        assert later.says.startswith(own)
        assert "recorded before it was committed" in later.says
    # The same dvc.lock over other code.
    (clone / "arithmetic" / "model.py").write_text("# other code\n")
    git(clone, "commit", "-qam", "other code")
    with store.opened(clone) as client:
        head = git(clone, "rev-parse", "HEAD").strip()
        client.set_tag(run.info.run_id, "git_commit", head)
    with pytest.raises(BrokenLink, match=r"arithmetic/model\.py of MD5 \w{12}, and commit"):
        list(trace.trace(clone, "2"))


def test_what_mlflow_shows_of_a_run_is_what_was_recorded(clone: Path) -> None:
    """A metric of its pages, and whether there is such a run at all."""
    with store.opened(clone) as client:
        run = str(client.get_model_version(MODEL, "2").run_id)
        client.log_metric(run, "errors", 4711.0, step=1)
        with pytest.raises(BrokenLink, match=r"outputs → errors: the metric .* is 4711\.0"):
            list(trace.trace(clone, "2"))
        client.delete_run(run)
    with pytest.raises(BrokenLink, match="its stage is recorded as active and is deleted"):
        list(trace.trace(clone, "2"))


def test_an_uncommitted_tree_is_reported_as_that(clone: Path) -> None:
    first = git(clone, "rev-list", "--max-parents=0", "HEAD").strip()
    with store.opened(clone) as client:
        run = str(client.get_model_version(MODEL, "2").run_id)
        client.set_tag(run, "git_commit", first)
        client.set_tag(run, "git_dirty", "yes")
    git(clone, "checkout", "-q", "--orphan", "elsewhere", first)
    for branch in git(clone, "branch", "--format=%(refname:short)").split():
        git(clone, "branch", "-D", branch)
    git(clone, "tag", "kept", first)
    last = list(trace.trace(clone, "2"))[-1]
    assert last.reservation
    assert "changes that no commit here holds" in last.says


def test_without_production_there_is_nothing_to_trace(clone: Path) -> None:
    with store.opened(clone) as client:
        client.delete_registered_model_alias(MODEL, "Production")
    with pytest.raises(VersionNotFound, match="no version of arithmetic-lm is Production"):
        list(trace.trace(clone))
