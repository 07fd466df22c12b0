"""What a finished pipeline left in a folder: the files that `record` projects into MLflow.

`dvc.lock` says what each stage read and wrote. It identifies the run, and the files must be the
ones it names: a record of anything else would be a false one.
"""

import hashlib
import json
import re
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from arithmetic import bundle
from arithmetic.checksum import md5
from arithmetic.gate import read_certificate
from registry import reads
from registry.errors import StaleWorkspace
from registry.flat import flatten

# The stage that records does not identify what it records.
RECORDING_STAGE = "record"
# Where the stages note what they read.
READS = "metrics/reads"
# How an operator is written in a metric's name, where MLflow does not accept the character.
_OPERATOR_NAMES = {"+": "plus", "-": "minus", "*": "times", "×": "times", "/": "over", "÷": "over"}


@dataclass(frozen=True)
class Workspace:
    """One finished pipeline.

    Attributes:
        root: the folder of dvc.lock.
        stages: what dvc.lock says of each stage but `record`: params, deps, outs.
        params: what the stages used of params.yaml, `train.seed` and so on; the gate's are not the
            run's, and may change while its run is still being recorded.
        outs: path to MD5 of every file (or folder) that a stage wrote.
        bundle_sha256: the model.
    """

    root: Path
    stages: dict[str, dict[str, Any]]
    params: dict[str, Any]
    outs: dict[str, str]
    bundle_sha256: str

    @property
    def run_digest(self) -> str:
        """SHA-256 of what dvc.lock says of the stages: the identity of a run."""
        return digest(self.stages)

    @property
    def data(self) -> dict[str, str]:
        """Path to MD5 of the data sets."""
        return data_of(self.outs)

    @property
    def data_digest(self) -> str:
        """SHA-256 over the data sets' names and MD5s."""
        return digest(self.data)

    @property
    def lock_sha256(self) -> str:
        """SHA-256 of dvc.lock's bytes."""
        return hashlib.sha256((self.root / "dvc.lock").read_bytes()).hexdigest()

    def evaluation(self) -> bytes:
        """The bytes of metrics/evaluation.json."""
        return (self.root / "metrics" / "evaluation.json").read_bytes()


def read(root: Path) -> Workspace:
    """Read dvc.lock and check the files against it, and what each stage noted of its inputs.

    Raises:
        StaleWorkspace: there is no dvc.lock, a file is missing or differs from it, params.yaml or
            the code was edited since, a stage read something else than dvc.lock says, or the
            evaluation is of another bundle.
        BrokenBundle: the bundle is incomplete.
    """
    stages, present = stages_in(root), flatten(_yaml(root / "params.yaml"))
    for stage in stages.values():
        for key, value in stage["params"].items():
            if present.get(key) != value:
                raise StaleWorkspace(
                    f"{key} is {present.get(key)!r} in params.yaml and dvc.lock was made with "
                    f"{value!r}; run `dvc repro`"
                )
    for stage in stages.values():
        for path, expected in stage["outs"].items():
            check_file(root, path, expected)
    for stage in stages.values():
        for path, expected in stage["deps"].items():
            if (root / path).exists():  # what is not here was not edited; the notes say what it was
                check_file(root, path, expected)
    reads.check(root / READS, stages)
    found = parse(root)
    check_evaluation(found)
    return found


def parse(root: Path) -> Workspace:
    """What dvc.lock says, no file being checked but those of the bundle.

    Raises:
        StaleWorkspace: one of them cannot be read, or an evaluation is missing.
        BrokenBundle: the bundle is incomplete.
    """
    stages = stages_in(root)
    params = {key: value for stage in stages.values() for key, value in stage["params"].items()}
    outs = {path: md5 for stage in stages.values() for path, md5 in stage["outs"].items()}
    for path in ("metrics/evaluation.json", "metrics/history.csv"):
        if not (root / path).is_file():
            raise StaleWorkspace(f"{path} is missing; run `dvc repro`")
    return Workspace(root, stages, params, outs, bundle.digest(root / "bundle"))


def check_evaluation(found: Workspace) -> None:
    """Raise StaleWorkspace unless metrics/evaluation.json speaks of the bundle."""
    judged = read_certificate(found.evaluation()).bundle_sha256
    if judged != found.bundle_sha256:
        raise StaleWorkspace(
            f"metrics/evaluation.json is of bundle {judged[:12]}, and bundle/ is "
            f"{found.bundle_sha256[:12]}; run `dvc repro --force evaluate`"
        )


def locked_stages(lock: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of dvc.lock's content, each stage but `record`: params (flat), deps, outs (path to MD5).

    Raises:
        StaleWorkspace: it is not as DVC writes it.
    """
    try:
        return {
            name: {
                "params": flatten(_params_of(entry)),
                "deps": {dep["path"]: _hash_of(dep) for dep in entry.get("deps", [])},
                "outs": {out["path"]: _hash_of(out) for out in entry.get("outs", [])},
            }
            for name, entry in lock.get("stages", {}).items()
            if name != RECORDING_STAGE
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise StaleWorkspace("dvc.lock is not as DVC writes it; restore it with git") from error


def stages_in(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of a folder's dvc.lock; raises StaleWorkspace."""
    return locked_stages(_yaml(root / "dvc.lock"))


def metrics(nested: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a metrics file under names that MLflow accepts: `by_operation.plus.errors`."""
    found: dict[str, float] = {}
    for key, value in nested.items():
        name = prefix + _metric_name(key)
        if isinstance(value, dict):
            found |= metrics(value, f"{name}.")
        elif isinstance(value, bool | int | float):
            found[name] = float(value)
    return found


def git_state(root: Path) -> dict[str, str]:
    """`git_commit` and `git_dirty` (yes or no) as tags; `none` and `unknown` outside of git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"git_commit": "none", "git_dirty": "unknown"}
    return {
        "git_commit": commit,
        "git_dirty": "yes" if _git(root, "status", "--porcelain") else "no",
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no repository: said so by the tag
    return done.stdout.strip()


def _metric_name(key: str) -> str:
    if key in _OPERATOR_NAMES:
        return _OPERATOR_NAMES[key]
    return re.sub(
        r"[^\w. -]", lambda match: unicodedata.name(match[0], "x").lower().replace(" ", "_"), key
    )


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StaleWorkspace(
            f"{path.name} cannot be read in {path.parent} ({error.strerror}); run `dvc repro` in "
            "the repository's root"
        ) from error
    except UnicodeDecodeError as error:
        raise StaleWorkspace(
            f"{path.name} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, "
            "or restore it with git"
        ) from error
    except yaml.YAMLError as error:
        raise StaleWorkspace(f"{path.name} is no YAML; restore it with git") from error
    if content is not None and not isinstance(content, dict):
        raise StaleWorkspace(f"{path.name} is no mapping of sections; restore it with git")
    return content or {}


def _params_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A stage's params, of whichever file they come from."""
    return {key: value for file in entry.get("params", {}).values() for key, value in file.items()}


def _hash_of(entry: dict[str, Any]) -> str:
    return str(entry[entry.get("hash", "md5")])


def check_file(root: Path, path: str, expected: str) -> None:
    """Raise StaleWorkspace unless `root/path` is there and has this MD5."""
    place = root / path
    if not place.exists():
        raise StaleWorkspace(f"{path} is missing; run `dvc repro`, or `dvc checkout {path}`")
    actual = md5(place)
    if actual != expected:
        raise StaleWorkspace(
            f"{path} differs from dvc.lock (it has {actual[:12]}, dvc.lock says {expected[:12]}); "
            "run `dvc repro`"
        )


def data_of(outs: dict[str, str]) -> dict[str, str]:
    """The data sets among outputs."""
    return {path: md5 for path, md5 in outs.items() if re.fullmatch(r"data/.*\.csv", path)}


def param_text(value: Any) -> str:
    """A param as MLflow keeps it."""
    return value if isinstance(value, str) else json.dumps(value)


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
