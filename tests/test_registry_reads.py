"""What a stage read is what dvc.lock says, or nothing is recorded (treeverse/dvc #11058)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from registry import reads
from registry.digests import md5, md5_of_folder
from registry.errors import StaleWorkspace

A, B = (hashlib.md5(name.encode()).hexdigest() for name in "ab")
GRAPHS = {"addition.onnx": A, "subtraction.onnx": B}
STAGES: dict[str, dict[str, Any]] = {
    "train": {
        "params": {"train.seed": 1, "generate.operations": ["+"]},
        "deps": {"data/train.csv": A, "arithmetic/model.py": B},
        "outs": {},
    },
    "evaluate": {"params": {}, "deps": {"bundle/decoders": md5_of_folder(GRAPHS)}, "outs": {}},
}
TRUE: dict[str, Any] = {
    "train": {
        "stage": "train",
        "params": {"train.seed": 1, "generate.operations": ["+"]},
        "files": {"data/train.csv": A, "arithmetic/model.py": B},
    },
    "evaluate": {
        "stage": "evaluate",
        "params": {},
        "files": {f"bundle/decoders/{name}": value for name, value in GRAPHS.items()},
    },
}


def noted(folder: Path, **changes: Any) -> Path:
    for stage, content in TRUE.items():
        note = content | (changes if stage == "train" else {})
        (folder / f"{stage}.json").write_text(json.dumps(note))
    return folder


def test_notes_that_agree_are_accepted(tmp_path: Path) -> None:
    """Files of a folder that dvc.lock names as one may be noted one by one."""
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
            {"params": {"train.seed": 2, "generate.operations": ["+"]}},
            "train ran with train.seed = 2 and dvc.lock says 1",
        ),
        ({"params": {"train.seed": 1}}, r"generate.operations = None and dvc.lock says \['\+'\]"),
        ({"files": None}, "train.json is no note"),
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
    path.write_text(path.read_text().replace(A, B))
    with pytest.raises(StaleWorkspace, match="evaluate read bundle/decoders with MD5"):
        reads.check(tmp_path, STAGES)


def test_a_note_that_is_missing_is_named(tmp_path: Path) -> None:
    noted(tmp_path)
    (tmp_path / "train.json").unlink()
    with pytest.raises(StaleWorkspace, match=r"train\.json .* `dvc repro --force train`"):
        reads.check(tmp_path, STAGES)


def test_digests_are_those_of_dvc() -> None:
    """The committed lock was written by DVC, folders included."""
    import yaml

    root = Path(__file__).resolve().parents[1]
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
    here = {out["path"]: out["md5"] for out in outs if (root / out["path"]).exists()}
    assert "bundle/decoders" in here
    assert {path: md5(root / path) for path in here} == here
