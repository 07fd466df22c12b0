"""What a stage read is what dvc.lock says, or nothing is recorded (treeverse/dvc #11058)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from arithmetic.checksum import md5
from registry import reads, workspace
from registry.digests import md5_of_folder
from registry.errors import StaleWorkspace

A, B = (hashlib.md5(name.encode()).hexdigest() for name in "ab")
FOLDER = md5_of_folder({"addition.onnx": A, "subtraction.onnx": B})
STAGES: dict[str, dict[str, Any]] = {
    "train": {
        "params": {"train.seed": 1, "generate.operations": ["+"]},
        "deps": {"data/train.csv": A, "arithmetic/model.py": B},
        "outs": {},
    },
    "evaluate": {"params": {}, "deps": {"bundle/decoders": FOLDER}, "outs": {}},
}
# As stages/reads.py writes them, before they become lists; `patience` is left out of params.yaml.
TRUE: dict[str, Any] = {
    "train": {
        "params": {"train": {"seed": 1, "patience": 10}, "generate.operations": ["+"]},
        "files": {"data/train.csv": A, "arithmetic/model.py": B},
    },
    "evaluate": {"params": {}, "files": {"bundle/decoders": FOLDER}},
}


def noted(folder: Path, **changes: Any) -> Path:
    for stage, content in TRUE.items():
        note = content | (changes if stage == "train" else {})
        lists = {
            "params": [{"key": key, "value": value} for key, value in note["params"].items()],
            "files": [{"path": path, "md5": value} for path, value in note["files"].items()],
        }
        (folder / f"{stage}.json").write_text(json.dumps(lists))
    return folder


def test_notes_that_agree_are_accepted(tmp_path: Path) -> None:
    """A default that params.yaml does not mention is no difference."""
    reads.check(noted(tmp_path), STAGES)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"files": {"data/train.csv": B, "arithmetic/model.py": B}},
            f"train read data/train.csv with MD5 {B[:12]} and dvc.lock says {A[:12]}",
        ),
        ({"files": {"data/train.csv": A}}, "train noted no reading of arithmetic/model.py"),
        (
            {"files": TRUE["train"]["files"] | {"arithmetic/extra.py": A}},
            "train read arithmetic/extra.py .*, which dvc.lock does not name",
        ),
        (
            {"params": {"train": {"seed": 2}, "generate.operations": ["+"]}},
            "train ran with train.seed = 2 and dvc.lock says 1",
        ),
        (
            {"params": {"train": {"seed": 1}}},
            r"generate.operations = None and dvc.lock says \['\+'\]",
        ),
    ],
)
def test_a_difference_is_named_with_both_values(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(StaleWorkspace, match=says):
        reads.check(noted(tmp_path, **changes), STAGES)


def test_a_graph_that_was_swapped_while_it_was_evaluated_is_found(tmp_path: Path) -> None:
    noted(tmp_path)
    path = tmp_path / "evaluate.json"
    path.write_text(path.read_text().replace(FOLDER, md5_of_folder({})))
    with pytest.raises(StaleWorkspace, match="evaluate read bundle/decoders with MD5"):
        reads.check(tmp_path, STAGES)


def test_a_note_that_is_missing_is_named(tmp_path: Path) -> None:
    noted(tmp_path)
    (tmp_path / "train.json").unlink()
    with pytest.raises(StaleWorkspace, match=r"train\.json .* `dvc repro --force train`"):
        reads.check(tmp_path, STAGES)
    (tmp_path / "train.json").write_text('{"params": 1}')
    with pytest.raises(StaleWorkspace, match=r"train\.json is no note of what train read"):
        reads.check(tmp_path, STAGES)


def test_the_committed_notes_agree_with_the_committed_lock() -> None:
    """What the stages write is what is read here, for the stages whose notes are in git."""
    root = Path(__file__).resolve().parents[1]
    stages = workspace.stages_in(root)
    del stages["generate"]  # DVC's cache has its note, with its data
    assert set(stages) == {"train", "export", "evaluate"}
    reads.check(root / workspace.READS, stages)


def test_digests_are_those_of_dvc() -> None:
    """The committed lock was written by DVC, folders included."""
    import yaml

    root = Path(__file__).resolve().parents[1]
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
    here = {out["path"]: out["md5"] for out in outs if (root / out["path"]).exists()}
    assert "bundle/decoders" in here
    assert {path: md5(root / path) for path in here} == here
