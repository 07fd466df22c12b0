"""Read params.yaml and dvc.lock, and check the workspace against the lock.

YAML is read as DVC reads it (ruamel.yaml, YAML 1.2: `1e-05` is a number, `010` is ten), so the
values are the ones that DVC locks. A duplicate key is refused.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.utils.flatten import flatten
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node

from arithmetic.errors import InvalidParamsError
from registry.exceptions import StaleWorkspaceError

REGISTER = "register"  # the stage that registers does not identify what it registers
REPRO = "run `dvc repro`"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose content is a mapping.

    Raises:
        InvalidParamsError: it cannot be read, is not YAML, or names a key twice.
    """
    return parse_yaml(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise InvalidParamsError(message, "restore it with git") from error


def parse_yaml(text: bytes, name: str) -> dict[str, Any]:
    """Parse the text of the YAML file `name`; raise InvalidParamsError."""
    try:
        content = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        duplicates = list(_duplicate_keys(YAML(typ="safe").compose(text)))
        listed = "; ".join(f"{key} in lines {', '.join(map(str, at))}" for key, at in duplicates)
        message = f"{name} names a key more than once: {listed}"
        raise InvalidParamsError(message, "keep one of them") from error
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        where = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidParamsError(
            f"{name} is not YAML{where}: {reason}", "correct it, or restore it with git"
        ) from error
    if not isinstance(content, dict):
        raise InvalidParamsError(f"{name} is not a mapping of sections", "restore it with git")
    return content


def _duplicate_keys(node: Node) -> Iterator[tuple[str, list[int]]]:
    if not isinstance(node, MappingNode):
        return
    lines = defaultdict(list)
    for key, value in node.value:
        lines[str(key.value)].append(key.start_mark.line + 1)
        yield from _duplicate_keys(value)
    yield from ((key, at) for key, at in lines.items() if len(at) > 1)


@dataclass(frozen=True)
class DvcLock:
    """Hold what dvc.lock contains of all stages but `register`.

    Attributes:
        params: what the stages used of params.yaml, by dotted keys.
        deps: path to MD5.
        outs: path to MD5.
        digest: the first 16 digits of the stages' SHA-256: the identity of a run.
    """

    params: dict[str, Any]
    deps: dict[str, str]
    outs: dict[str, str]
    digest: str

    @property
    def data(self) -> dict[str, str]:
        """Return path to MD5 of the data sets."""
        return {path: md5 for path, md5 in self.outs.items() if path.startswith("data/")}


def parse_lock(text: bytes, name: str) -> DvcLock:
    """Return the content of a dvc.lock.

    Raises:
        InvalidParamsError, StaleWorkspaceError: it is not YAML, or not as DVC writes it.
    """
    try:
        stages = {
            stage_name: {
                "params": dict(stage.get("params", {}).get("params.yaml", {})),
                "deps": {dep["path"]: dep["md5"] for dep in stage.get("deps", [])},
                "outs": {out["path"]: out["md5"] for out in stage.get("outs", [])},
            }
            for stage_name, stage in parse_yaml(text, name)["stages"].items()
            if stage_name != REGISTER
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise StaleWorkspaceError(f"{name} is not as DVC writes it", REPRO) from error
    canonical = json.dumps(stages, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    lock = DvcLock({}, {}, {}, digest)
    for stage in stages.values():
        for key, value in stage["params"].items():  # a section, or one dotted key of it
            lock.params.update(flatten({key: value}))
        lock.deps.update(stage["deps"])
        lock.outs.update(stage["outs"])
    return lock


def read_lock(root: Path) -> DvcLock:
    """Read `root/dvc.lock`; raise StaleWorkspaceError if there is none."""
    path = root / "dvc.lock"
    if not path.is_file():
        raise StaleWorkspaceError(f"there is no {path}", REPRO)
    return parse_lock(_read(path), str(path))


def check_workspace(root: Path, lock: DvcLock) -> None:
    """Raise StaleWorkspaceError unless params and outputs in `root` are the locked ones."""
    params = flatten(read_yaml(root / "params.yaml"))
    for key, locked in lock.params.items():
        if params.get(key) != locked:
            message = f"{key} is {params.get(key)!r} in params.yaml and {locked!r} in dvc.lock"
            raise StaleWorkspaceError(message, REPRO)
    for path, locked in lock.outs.items():
        present = md5(root / path) if (root / path).exists() else "missing"
        if present != locked:
            message = f"{path} is {present}, and has MD5 {locked} in dvc.lock"
            raise StaleWorkspaceError(message, f"{REPRO}, or `dvc checkout {path}`")


def md5(path: Path) -> str:
    """Return the MD5 of a file or folder as DVC computes it (a folder's ends in `.dir`)."""
    if not path.is_dir():
        return md5_of_bytes(path.read_bytes())
    files = {f.relative_to(path).as_posix(): md5(f) for f in path.rglob("*") if f.is_file()}
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return md5_of_bytes(json.dumps(listing).encode()) + ".dir"


def md5_of_bytes(content: bytes) -> str:
    """Return the MD5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
