"""The one file of DVC's that a kill can leave unusable."""

import json
import time
from pathlib import Path

# A process that is writing the file fills it within microseconds of emptying it.
WRITING_SECONDS = 1.0


def mended(root: Path) -> bool:
    """Remove DVC's `.dvc/tmp/rwlock` in `root` if it does not read; whether that was so.

    DVC (3.67.1) writes this file, which says what running processes use, in place. Killed between
    emptying and filling it, DVC leaves one that no later `dvc repro` accepts. It holds nothing that
    outlives the processes it speaks of, so without it nothing is lost.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if _reads(path):
        return False
    time.sleep(WRITING_SECONDS)
    if _reads(path):
        return False
    path.unlink(missing_ok=True)
    return True


def _reads(path: Path) -> bool:
    """True also where there is none."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True
