"""The documentation site builds strictly, opens offline, and its links hold on GitHub too."""

import re
import subprocess

import pytest

from benchmarks.results_file import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_site_builds_strictly_and_needs_nothing_from_outside():
    done = subprocess.run(
        ["zensical", "build", "--strict", "--clean"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((ROOT / "site").rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        html = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|source|link)\b[^>]*(?:src|href|srcset)=.?http.*", html)
        assert loaded == [], page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_hold_on_github_and_pages_link_only_to_docs(path):
    text = path.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    for target in targets:
        if re.match("[a-z]+:", target):
            continue
        file = (path.parent / target).resolve()
        assert file.is_file(), target
        assert path.parent == ROOT or file.is_relative_to(ROOT / "docs"), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        assert path.relative_to(ROOT / "docs").as_posix() in navigation, path
