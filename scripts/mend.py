"""make mend: remove what a killed DVC left behind and no later `dvc repro` accepts.

DVC (3.67.1) does two things in place. It empties `.dvc/tmp/rwlock`, which says what running
processes use, before it fills it; and it makes the folder of an entry of its run cache before the
entry. Killed in between, it leaves an empty file or folder, and every later `dvc repro` fails: with
`Unable to read RWLock-file`, or with `join() argument must be str …, not 'NoneType'`. Neither holds
anything, so without it nothing is lost. `make bench-kills` found both.
"""

import argparse
import json
import time
from pathlib import Path

from arithmetic.errors import reported

# A process that is writing needs microseconds.
WRITING_SECONDS = 1.0


def mended(root: Path) -> list[str]:
    """Remove them from the DVC project in `root`; returns the paths of what was removed."""
    found = _broken(root)
    if not found:
        return []
    time.sleep(WRITING_SECONDS)  # a living DVC has written by then
    removed = []
    for path in [one for one in _broken(root) if one in found]:
        try:
            path.rmdir() if path.is_dir() else path.unlink()
        except OSError:  # somebody has mended it, or filled it just now
            continue
        removed.append(str(path.relative_to(root)))
    return removed


def _broken(root: Path) -> list[Path]:
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    entries = root.glob(".dvc/cache/runs/*/*")
    return [
        *([] if _reads(rwlock) else [rwlock]),
        *(one for one in entries if one.is_dir() and not any(one.iterdir())),
    ]


def _reads(path: Path) -> bool:
    """True also where there is none."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Remove what a killed DVC left unusable.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="of a DVC project")
    with reported():
        root = parser.parse_args().root
        for path in mended(root):
            print(f"mend: removed {root / path}, which a killed DVC had left empty")


if __name__ == "__main__":
    main()
