"""Write a benchmark's result as JSON, with the date, the machine and the commit.

An interrupted benchmark continues from its own result while the code that decides it is the same.
"""

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Return the CPU model, the cores this process may use, and the Python version."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "python": platform.python_version()}


def commit() -> str:
    """Return the checked-out commit, with `-dirty` if anything but documents differs from it."""
    code = ["HEAD", "--", ".", ":!benchmarks/results", ":!docs", ":!*.md"]
    is_dirty = subprocess.run(["git", "diff", "--quiet", *code], cwd=ROOT, check=False).returncode
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return f"{head}-dirty" if is_dirty else head


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json` atomically and return its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    date = datetime.now(UTC).date().isoformat()
    content = {"date": date, "machine": machine(), "commit": commit(), **figures}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read(name: str, code: str) -> dict[str, Any]:
    """Return the result `name` if it is of this `code`, else nothing."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return content if content.get("code") == code else {}


def code_digest(*patterns: str) -> str:
    """Return a digest of the repository's files that match: equal digests, comparable results."""
    result = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        result.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return result.hexdigest()[:16]
