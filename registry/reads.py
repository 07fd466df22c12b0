"""What the stages read, as they noted it themselves, against what dvc.lock says of them.

DVC hashes a stage's dependencies when its command has ended (treeverse/dvc #11058): a file edited
while the stage ran stands in dvc.lock with bytes that the stage never saw. Each stage therefore
notes the MD5 of what it read (`stages/reads.py`), `metrics/reads/train.json`:

    {"params": [{"key": "train", "value": {"seed": 1, …}}, …],
     "files": [{"path": "data/train.csv", "md5": "…"}, …]}
"""

import json
from pathlib import Path
from typing import Any

from registry.errors import StaleWorkspace
from registry.flat import flatten


def check(folder: Path, stages: dict[str, dict[str, Any]]) -> None:
    """Compare the notes in `folder` with dvc.lock's stages.

    Args:
        folder: `metrics/reads`.
        stages: name to `params` (flat) and `deps` (path to MD5).

    Raises:
        StaleWorkspace: a note is missing or differs; the sentence names the file or the key and
            both values.
    """
    for name, stage in stages.items():
        noted = _read(folder / f"{name}.json")
        _compare_params(name, noted["params"], stage["params"])
        _compare_files(name, noted["files"], stage["deps"])


def _compare_params(stage: str, noted: dict[str, Any], locked: dict[str, Any]) -> None:
    # A note has the defaults of keys that params.yaml leaves out as well; dvc.lock has not.
    for key in sorted(locked):
        if noted.get(key) != locked.get(key):
            raise StaleWorkspace(
                f"{stage} ran with {key} = {noted.get(key)!r} and dvc.lock says "
                f"{locked.get(key)!r}: it was edited while the stage ran; run "
                f"`dvc repro --force {stage}`"
            )


def _compare_files(stage: str, noted: dict[str, str], locked: dict[str, str]) -> None:
    mend = f"run `dvc repro --force {stage}`"
    for path, md5 in sorted(locked.items()):
        read = noted.get(path)
        if read is None:
            raise StaleWorkspace(
                f"{stage} noted no reading of {path}, which dvc.lock names as its input; {mend}"
            )
        if read != md5:
            raise StaleWorkspace(
                f"{stage} read {path} with MD5 {read[:12]} and dvc.lock says {md5[:12]}: it was "
                f"edited while the stage ran; {mend}"
            )
    for path in sorted(noted.keys() - locked.keys()):
        raise StaleWorkspace(
            f"{stage} read {path} (MD5 {noted[path][:12]}), which dvc.lock does not name as its "
            f"input; {mend}"
        )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    mend = f"run `dvc repro --force {path.stem}`"
    try:
        content = json.loads(path.read_bytes())
        params = {entry["key"]: entry["value"] for entry in content["params"]}
        files = {str(entry["path"]): str(entry["md5"]) for entry in content["files"]}
        return {"params": flatten(params), "files": files}
    except OSError as error:
        raise StaleWorkspace(
            f"{path.name} of what {path.stem} read cannot be read ({error.strerror}); {mend}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StaleWorkspace(f"{path.name} is no note of what {path.stem} read; {mend}") from error
