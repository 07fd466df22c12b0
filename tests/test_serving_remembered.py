"""What a service notes on its disk: the versions that passed, and those that were taken out."""

import os
import shutil
import time
from pathlib import Path

import pytest

from arithmetic import bundle
from registry import inputs
from registry.pull import Pulled
from serving.remembered import ABANDONED_SECONDS, KEPT, Memory
from serving.withdrawals import Withdrawals

URI, SERVER = "models:/m@Production", "http://127.0.0.1:1"


@pytest.fixture
def pulled(tiny_bundle: Path, tmp_path: Path) -> list[Pulled]:
    """More versions than are kept, each with a folder among the bundles."""
    found = []
    for number in range(KEPT + 2):
        folder = tmp_path / "cache" / f"m-{number}"
        shutil.copytree(tiny_bundle, folder)
        inputs.beside(folder).write_text("{}")
        found.append(Pulled("m", str(number), folder, bundle.digest(folder)))
    return found


def test_bundles_that_nobody_remembers_are_deleted(pulled: list[Pulled], tmp_path: Path) -> None:
    """The folder stays bounded; another service's bundles in it are not touched."""
    cache = tmp_path / "cache"
    Memory(cache, URI, "http://127.0.0.1:2").remember(pulled[1])
    memory = Memory(cache, URI, SERVER)
    for one in pulled:
        memory.remember(one)
    there = {one.name for one in cache.iterdir() if one.name.startswith("m-")}
    assert there == {
        name for one in pulled[1:] for name in (one.bundle.name, inputs.beside(one.bundle).name)
    }
    assert [one.version for one in memory.latest(set())] == [
        one.version for one in reversed(pulled[2:])
    ]


def test_bundles_that_never_passed_are_deleted_in_the_end(
    pulled: list[Pulled], tmp_path: Path
) -> None:
    """Refused by the self-test or withdrawn: no note ever names them."""
    cache = tmp_path / "cache"
    long_ago = time.time() - 2 * ABANDONED_SECONDS
    for name, when in (("m-77-0123456789ab", long_ago), ("m-78-0123456789ab", time.time())):
        (cache / name).mkdir()
        os.utime(cache / name, (when, when))
    Memory(cache, URI, SERVER).remember(pulled[0])
    assert not (cache / "m-77-0123456789ab").exists()
    assert (cache / "m-78-0123456789ab").exists(), "another worker may just have fetched it"


def test_downloads_that_nobody_finished_are_deleted(pulled: list[Pulled], tmp_path: Path) -> None:
    """One that is still at work is not."""
    old, new = (tmp_path / "cache" / f".pull-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    long_ago = time.time() - 2 * ABANDONED_SECONDS
    os.utime(old, (long_ago, long_ago))
    Memory(tmp_path / "cache", URI, SERVER).remember(pulled[0])
    assert new.exists()
    assert not old.exists()


def test_a_folder_outside_is_never_deleted(pulled: list[Pulled], tmp_path: Path) -> None:
    """Whatever the notes say."""
    outside = tmp_path / "elsewhere"
    shutil.copytree(pulled[0].bundle, outside)
    memory = Memory(tmp_path / "cache", URI, SERVER)
    memory.remember(Pulled("m", "99", outside, pulled[0].bundle_sha256))
    for one in pulled:
        memory.remember(one)
    assert outside.is_dir()


def test_a_withdrawal_is_known_to_another_process_until_the_alias_has_moved(tmp_path: Path) -> None:
    here, there = (Withdrawals(tmp_path, URI, SERVER) for _ in range(2))
    assert there.read() == {}
    here.add(("3", "abc"), "version 3 is often wrong")
    here.add(("4", "def"), "version 4 too")
    assert there.read() == {
        ("3", "abc"): "version 3 is often wrong",
        ("4", "def"): "version 4 too",
    }
    assert Withdrawals(tmp_path, "models:/m@Candidate", SERVER).read() == {}
    there.keep_only(("4", "def"))
    assert here.read() == {("4", "def"): "version 4 too"}


@pytest.mark.parametrize(
    "content",
    [
        '[{"version": 3}]',
        '[{"version": "3", "bundle_sha256": ["abc"], "reason": "x", "at": "y"}]',
        '[{"version": "3", "bundle_sha256": "abc", "reason": null, "at": "y"}]',
        "[" * 100_000,
        "{}",
        "5",
        "\0",
        "",
    ],
    ids=lambda content: content[:20],
)
def test_notes_that_are_none_are_ignored(tmp_path: Path, caplog, content: str) -> None:
    """A service starts with whatever it finds in its folder."""
    withdrawals = Withdrawals(tmp_path, URI, SERVER)
    assert withdrawals.add(("3", "abc"), "often wrong")
    assert not withdrawals.add(("3", "abc"), "often wrong"), "another worker was first"
    (notes,) = tmp_path.glob("withdrawn-*.json")
    notes.write_text(content)
    assert withdrawals.read() == {}
    assert "not readable as notes" in caplog.text
    remembered = Memory(tmp_path, URI, SERVER)
    remembered.path.write_text(content)
    assert remembered.latest(set()) == []


def test_a_disk_that_takes_no_notes_is_said(tmp_path: Path, caplog) -> None:
    Withdrawals(tmp_path / "file" / "cache", URI, SERVER).read()
    (tmp_path / "file").write_text("")
    Withdrawals(tmp_path / "file" / "cache", URI, SERVER).add(("3", "abc"), "version 3")
    assert "other workers are not told of version 3" in caplog.text
