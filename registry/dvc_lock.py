"""Temporary stub."""
from pathlib import Path
from typing import Any
from ruamel.yaml import YAML
def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())
