"""MD5 as DVC computes it, so that what a stage read can be compared with dvc.lock."""

import hashlib
import json
from pathlib import Path


def md5(path: Path) -> str:
    """Of a file's bytes, or of the listing of a folder (then it ends in `.dir`).

    Raises:
        OSError: it is missing or cannot be read.
    """
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    listing = [
        {"md5": md5(file), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file()
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"
