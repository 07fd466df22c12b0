"""The audit and the security page name files, tests and targets that exist."""

import re

import pytest

from benchmarks.results_file import ROOT

TESTS = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("page", ["audit.md", "explanation/security.md"])
def test_named_files_tests_and_targets_exist(page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    for path in re.findall(r"`([\w./-]+/[\w.-]+\.\w+)", text):
        assert path.startswith("reports/") or (ROOT / path).is_file(), path  # in DVC's cache
    tests = re.findall(r"`(?:(tests/\S+\.py)::)?(test_\w+)`", text)
    assert len(tests) > 20
    for path, name in tests:
        assert f"def {name}(" in ((ROOT / path).read_text("utf-8") if path else TESTS), name
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target
