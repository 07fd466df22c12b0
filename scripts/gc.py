"""make gc: delete what DVC's cache holds and nothing needs; only says so without YES=1.

Kept is what any of these names: dvc.lock here, of every git commit and of every experiment, and
the dvc.lock that each run in MLflow's store has among its artifacts, so that of every registered
version. Models are kept with their locks although git has them: DVC's run cache gives them back
when params go back to where they were. MLflow's store itself is not touched.

Checkpoints of killed trainings go when nobody has touched them for a week. Going on from one only
saves time: the bytes are the same.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from arithmetic.errors import Problem, reported

CHECKPOINT_DAYS = 7
PROJECTS = (".", "four-operations")


def locks(root: Path) -> list[Path]:
    """Every dvc.lock in the workspace and among the artifacts of MLflow's runs."""
    found = [root / project / "dvc.lock" for project in PROJECTS]
    return [path for path in found if path.is_file()] + sorted(
        (root / "mlartifacts").rglob("artifacts/dvc.lock")
    )


def keeper(found: list[Path], cache: Path, folder: Path) -> Path:
    """A DVC project of nothing but these locks, each in a folder, with every output cached.

    Raises:
        Problem: a lock cannot be read, so nobody knows what it needs.
    """
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    for number, lock in enumerate(found):
        try:
            stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
            outs = {name: [out["path"] for out in s.get("outs", [])] for name, s in stages.items()}
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise Problem(
                f"{lock} does not read, so nothing is deleted; restore it first"
            ) from error
        pipeline = {name: {"cmd": "true", "outs": paths} for name, paths in outs.items() if paths}
        target = folder / str(number)
        target.mkdir()
        (target / "dvc.yaml").write_text(yaml.safe_dump({"stages": pipeline}), encoding="utf-8")
        (target / "dvc.lock").write_bytes(lock.read_bytes())
    # DVC walks through the commits of this one too, so there must be one.
    author = ["-c", "user.name=gc", "-c", "user.email=gc@localhost"]
    for arguments in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "locks"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def collect(root: Path, name: str, really: bool) -> None:
    """`dvc gc` in one project of the repository, its words printed; raises Problem if it fails."""
    cache = root / name / ".dvc" / "cache"
    if not cache.is_dir():
        return
    with tempfile.TemporaryDirectory() as scratch:
        keep = keeper(locks(root), cache.resolve(), Path(scratch) / "locks")
        command = [sys.executable, "-m", "dvc", "gc", "--all-commits", "--all-experiments"]
        command += ["--projects", str(keep), "--force" if really else "--dry"]
        done = subprocess.run(command, cwd=root / name, check=False)
    if done.returncode:
        raise Problem(f"dvc gc failed in {root / name} (its own words are above)")


def old_checkpoints(root: Path, now: float) -> list[Path]:
    """Files of trainings that nobody has touched for CHECKPOINT_DAYS, and that none holds.

    Checkpoints, what killed trainers left half written, and locks of finished ones.
    """
    found = []
    for name in PROJECTS:
        for path in sorted((root / name / ".checkpoints").glob("*.*")):
            lock = path.with_name(f"{path.name.partition('.')[0]}.lock")
            if now - path.stat().st_mtime > CHECKPOINT_DAYS * 86_400 and not held(lock):
                found.append(path)
    return found


def held(lock: Path) -> bool:
    """Whether a training is at work under this lock (`stages.checkpoint.alone`)."""
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Delete what the cache holds and nothing needs.")
    parser.add_argument("--yes", action="store_true", help="really delete")
    given = parser.parse_args()
    with reported():
        if os.environ.get("MLFLOW_TRACKING_URI"):
            raise Problem(
                "MLFLOW_TRACKING_URI names a server, and what its versions need is not known here: "
                "unset it to collect by the local store, or use `dvc gc` and choose yourself"
            )
        root = Path.cwd()
        for name in PROJECTS:
            collect(root, name, given.yes)
        for path in old_checkpoints(root, time.time()):
            print(f"{path.relative_to(root)}, untouched for {CHECKPOINT_DAYS} days")
            if given.yes:
                path.unlink()
        if not given.yes:
            print("nothing was deleted; `make gc YES=1` does it")


if __name__ == "__main__":
    main()
