"""docs/serving.md lists every setting with its default and meaning, and every route.

python -m tests.test_serving_docs     prints the table of settings, to be pasted there
"""

import itertools
import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from serving.app import create_app
from serving.following import FollowingSettings
from serving.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "serving.md"


def meanings(settings: type) -> dict[str, str]:
    """From the names in a docstring's `Attributes:` to what it says; several may share a line."""
    text = (settings.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for names, meaning in re.findall(
        r"^ *([a-z_, ]+?): (.*(?:\n(?! *[a-z_, ]+: ).+)*)", text, re.M
    ):
        for name in names.split(", "):
            found[name.strip()] = " ".join(meaning.split())
    return found


def table() -> list[str]:
    """A row for each setting."""
    known = meanings(Settings) | meanings(FollowingSettings)
    own = [name for name in Settings.model_fields if name not in FollowingSettings.model_fields]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name in [*own, *FollowingSettings.model_fields]:
        default = Settings.model_fields[name].get_default(call_default_factory=True)
        if default is PydanticUndefined:
            shown = "must be set"
        elif default is None or default in ("", SecretStr("")):
            shown = ""
        elif name == "model_cache":
            shown = "`arithmetic-lm-models` in the temporary folder"
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append(f"| `{name.upper()}` | {shown} | {known[name]} |")
    return rows


def test_every_setting_stands_in_the_page():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(table()[0])
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    assert list(rows) == table()


def test_every_route_stands_in_the_page():
    app = create_app(Settings(mlflow_tracking_uri="http://127.0.0.1:1"))
    page = PAGE.read_text(encoding="utf-8")
    for path in app.openapi()["paths"]:
        assert f"`{path}`" in page or f" {path}`" in page, path


if __name__ == "__main__":
    print("\n".join(table()))
