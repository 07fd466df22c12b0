"""The audit names files and tests that exist."""

import re

from benchmarks.results_file import ROOT

AUDIT = (ROOT / "docs" / "audit.md").read_text("utf-8")


def test_named_files_exist():
    committed_elsewhere = ("reports/",)  # in DVC's cache
    for path in re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`", AUDIT):
        assert path.startswith(committed_elsewhere) or (ROOT / path).is_file(), path


def test_named_tests_exist():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", AUDIT)
    assert len(names) > 30
    for name in names:
        assert f"def {name}(" in code, name


def test_named_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"`make ([a-z-]+)", AUDIT)):
        assert re.search(rf"^{target}:", makefile, re.M), target
