"""How long each stage took here, for MLflow: times may not be in any DVC output.

`.times.json` in the working directory, ignored by git and DVC, keeps the seconds of each stage with
the digest of a file that the stage wrote: they count only while that file is the one there.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMES = Path(".times.json")


@contextmanager
def timed(stage: str, output: Path) -> Iterator[None]:
    """Note the wall-clock seconds of the block, which writes `output`."""
    started = time.perf_counter()
    yield
    seconds = round(time.perf_counter() - started, 1)
    try:
        times = json.loads(TIMES.read_bytes())
        if not isinstance(times, dict):
            raise ValueError("no object")
    except (FileNotFoundError, ValueError):
        times = {}
    sha256 = hashlib.sha256(output.read_bytes()).hexdigest()
    times[stage] = {"seconds": seconds, "file": output.as_posix(), "sha256": sha256}
    draft = TIMES.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(times, indent=2) + "\n", encoding="utf-8")
    draft.replace(TIMES)
