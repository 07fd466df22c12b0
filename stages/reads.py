"""What a stage really read: the params and the digests of the files that dvc.yaml lists for it.

DVC hashes dependencies after the command has run (treeverse/dvc #11058), so an edit while a stage
works would be recorded as if it had been there before. A stage therefore notes what was there when
it began, refuses to end where that has changed, and recording compares the note with dvc.lock.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from arithmetic.checksum import md5
from arithmetic.errors import InvalidParams, Problem
from stages import stop_if_orphaned
from stages.params import Params


@contextmanager
def noted(stage: str, params: Params, to: Path | None) -> Iterator[Callable[[], None]]:
    """Around a stage's work: write what it reads to `to`, as JSON; nothing if that is None.

    Gives a check to call before anything is written, which raises Problem where the outputs would
    belong to nothing: an input was changed, or the stage is an orphan, and another `dvc repro` may
    have written its own. At the end it is called once more.

    Raises:
        InvalidParams: dvc.yaml does not describe the stage, or a file that it lists is missing.
        Problem: as the check.
    """
    if to is None:
        yield stop_if_orphaned
        return
    listed, keys = _described(stage)
    before = _digests(listed)

    def check() -> None:
        stop_if_orphaned()
        for path, digest in _digests(listed).items():
            if digest != before[path]:
                raise Problem(
                    f"{path} was changed while {stage} ran, so what it made belongs to neither; "
                    "run `dvc repro` again"
                )

    yield check
    check()
    # Lists, as `dvc metrics show` would make a column of every key of a mapping.
    content = {
        "params": [{"key": key, "value": _value(params.model_dump(), key)} for key in keys],
        "files": [{"path": path, "md5": digest} for path, digest in before.items()],
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _described(stage: str) -> tuple[list[str], list[str]]:
    """A stage's dependencies and the keys of its params."""
    try:
        entry = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
        return sorted(entry["deps"]), sorted(entry["params"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InvalidParams(
            f"dvc.yaml does not describe the stage {stage}; run it by `dvc repro` in "
            "the project's folder, or without --reads"
        ) from error


def _digests(paths: list[str]) -> dict[str, str]:
    try:
        return {path: md5(Path(path)) for path in paths}
    except OSError as error:
        raise InvalidParams(f"{error.filename} cannot be read; run `dvc repro`") from error


def _value(params: dict[str, Any], key: str) -> Any:
    """`train.seed` of nested params."""
    value: Any = params
    for name in key.split("."):
        value = value[name]
    return value
