"""Digests of files and folders: MD5 as DVC computes it, SHA-256 for all else."""

import hashlib
import json
from pathlib import Path


def md5(path: Path) -> str:
    """Of a file's bytes, or of the listing of a folder (then it ends in `.dir`)."""
    if path.is_file():
        return md5_of(path.read_bytes())
    files = (file for file in path.rglob("*") if file.is_file())
    return md5_of_folder({file.relative_to(path).as_posix(): md5(file) for file in files})


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
