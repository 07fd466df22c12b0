"""Generated tables are the ones of the committed results."""

import pytest

from arithmetic.errors import UserError
from benchmarks.results_file import ROOT
from benchmarks.tables import update

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_tables_are_up_to_date(path):
    text = path.read_text("utf-8")
    assert update(text) == text, "run `make tables`"


def test_an_unknown_table_is_an_error():
    with pytest.raises(UserError, match="'nonsense'"):
        update("<!-- table: nonsense -->\n<!-- end -->\n")


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
