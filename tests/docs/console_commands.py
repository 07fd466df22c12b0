"""Read the commands of the `console` blocks in README.md and docs/."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from benchmarks.results_file import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_lines(page: Path) -> list[str]:
    """Return the lines after `$ ` of a page, continued lines joined."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    ]


def split_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line, without variables before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            while words and re.match("[A-Z_]+=", words[0]):
                del words[0]
            if words:
                yield words
            words = []
        else:
            words.append(word)
