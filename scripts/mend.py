"""make mend: remove what a killed DVC left behind and no later `dvc repro` accepts.

DVC (3.67.1) does three things in place. It empties dvc.lock, and `.dvc/tmp/rwlock`, which says what
running processes use, before it fills them; and it makes the folder of an entry of its run cache
before the entry. Killed in between, it leaves an empty file or folder (or half of dvc.lock), and
every later `dvc repro` fails: `'./dvc.lock' validation failed`, `Unable to read RWLock-file`, or
`join() argument must be str …, not 'NoneType'`. `make bench-kills` found all three. What is removed
holds nothing that `dvc repro` does not make again, in the same bytes.
"""

import argparse
import itertools
import json
import subprocess
import time
from pathlib import Path

import yaml

from arithmetic.errors import reported

# A process that is writing needs microseconds.
WRITING_SECONDS = 1.0
ASIDE = ".dvc/tmp/dvc.lock.broken"


def mended(root: Path) -> list[str]:
    """Mend the DVC project in `root`; returns a sentence for each thing that was mended."""
    found = _broken(root)
    if not found:
        return []
    time.sleep(WRITING_SECONDS)  # a living DVC has written by then
    said = []
    for path in [one for one in _broken(root) if one in found]:
        try:
            said.append(_mend(root, path))
        except OSError:  # somebody has mended it, or filled it just now
            continue
    return said


def _mend(root: Path, path: Path) -> str:
    name = path.relative_to(root)
    if path.name != "dvc.lock":
        path.rmdir() if path.is_dir() else path.unlink()
        return f"removed {name}, which a killed DVC had left empty or half written"
    # Whatever is in it is kept, in case that it was not DVC who broke it.
    (root / ASIDE).parent.mkdir(parents=True, exist_ok=True)
    aside = next(
        place
        for number in itertools.count()
        if not (place := root / (f"{ASIDE}.{number}" if number else ASIDE)).exists()
    )
    path.rename(aside)
    back = subprocess.run(
        ["git", "checkout", "--quiet", "--", "dvc.lock"], cwd=root, capture_output=True, check=False
    )
    now = "git's is back in its place" if back.returncode == 0 else "`dvc repro` makes another"
    kept = aside.relative_to(root)
    return f"moved {name}, which a killed DVC had left half written, to {kept}; {now}"


def _broken(root: Path) -> list[Path]:
    rwlock, lock = root / ".dvc" / "tmp" / "rwlock", root / "dvc.lock"
    entries = root.glob(".dvc/cache/runs/*/*")
    return [
        *([] if _reads(rwlock) else [rwlock]),
        *([] if _is_whole(lock) else [lock]),
        *(one for one in entries if one.is_dir() and not any(one.iterdir())),
    ]


def _reads(path: Path) -> bool:
    """Whether it is JSON; True also where there is none."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _is_whole(lock: Path) -> bool:
    """Whether a dvc.lock is one; True also where there is none, or a conflict of git's in it."""
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except UnicodeDecodeError:
        return False
    if "<<<<<<<" in text:  # a person has to decide
        return True
    try:
        content = yaml.safe_load(text)
        stages = content["stages"].values()
        entries = [
            one for stage in stages for key in ("deps", "outs") for one in stage.get(key, ())
        ]
        return all("cmd" in stage for stage in stages) and all(one["path"] for one in entries)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Remove what a killed DVC left unusable.")
    parser.add_argument("roots", nargs="*", type=Path, default=[Path()], help="of DVC projects")
    with reported():
        for root in parser.parse_args().roots:
            for sentence in mended(root):
                print(f"mend: {sentence}" + (f" (in {root})" if root != Path() else ""))


if __name__ == "__main__":
    main()
