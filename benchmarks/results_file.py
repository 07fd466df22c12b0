"""Write a benchmark's result as JSON, with the date, the machine and the commit; print tables.

An interrupted benchmark continues from its own result on the same commit.
"""

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


def commit() -> str:
    """Return the present commit; it ends with `-dirty` if anything but documents differs."""
    return (head(ROOT) or "")[:12] + ("-dirty" if git(ROOT, "diff", *_CODE) else "")


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json` atomically and return its path."""
    path = RESULTS / f"{name}.json"
    date = datetime.now(UTC).date().isoformat()
    content = {"date": date, "machine": machine(), "commit": commit(), **figures}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read(name: str, code: str) -> dict[str, Any]:
    """Return the result `name` if it is of this commit, else nothing; nothing of a dirty one."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return content if content.get("code") == code and not code.endswith("-dirty") else {}


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as columns under their keys."""
    return pd.DataFrame(rows).to_string(index=False, na_rep="", float_format="{:,.2f}".format)
