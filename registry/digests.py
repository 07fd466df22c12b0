"""Digests of what is no file here (MD5 as in `arithmetic.checksum`), and of many files at once."""

import hashlib
import json
from pathlib import Path


def md5_of(content: bytes) -> str:
    """Of the bytes of a file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5_of_folder(files: dict[str, str]) -> str:
    """Of a folder, from its files' paths within it and their MD5s."""
    listing = [{"md5": value, "relpath": name} for name, value in sorted(files.items())]
    return md5_of(json.dumps(listing, sort_keys=True).encode()) + ".dir"


def file_digests(folder: Path) -> dict[str, str]:
    """Path within the folder to SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
