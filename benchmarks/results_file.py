"""Write a benchmark's result as JSON, with the date, the machine and the commit; print tables.

An interrupted benchmark continues from its own result while the code that decides it is the same.
"""

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from registry.commits import git, head

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_CODE = ("HEAD", "--", ".", ":!benchmarks/results", ":!docs", ":!*.md")


def machine() -> dict[str, Any]:
    """Return the CPU model, the cores this process may use, and the Python version."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": joblib.cpu_count(),
        "python": platform.python_version(),
    }


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json` atomically and return its path.

    The commit ends with `-dirty` if anything but documents differs from it.
    """
    path = RESULTS / f"{name}.json"
    commit = (head(ROOT) or "")[:12] + ("-dirty" if git(ROOT, "diff", *_CODE) else "")
    date = datetime.now(UTC).date().isoformat()
    content = {"date": date, "machine": machine(), "commit": commit, **figures}
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


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as columns under their keys."""
    return pd.DataFrame(rows).to_string(index=False, na_rep="", float_format="{:,.2f}".format)
