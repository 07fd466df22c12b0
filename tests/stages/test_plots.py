"""The page of `dvc plots show`: every plot is drawn, without the internet."""

import json

from playwright.sync_api import expect

from stages import evaluate
from tests.browser import needs_chromium, open_page, start_browser
from tests.small_project import dvc


@needs_chromium
def test_every_plot_is_drawn_offline(project):
    errors = json.loads((project / evaluate.METRICS).read_bytes())["errors"]
    address = dvc(project, "plots", "show").strip()
    with start_browser() as browser, open_page(browser, address) as page:
        plots = page.locator("svg.marks")
        titles = ("Equations", "Loss", "Exact match", "Minimum margin", "Wrong answers")
        expect(plots).to_have_count(len(titles))
        for plot, title in zip(plots.all(), titles, strict=True):
            expect(plot).to_contain_text(title)
        expect(plots.nth(1)).to_contain_text("best checkpoint")
        assert errors > 0
        expect(plots.last).not_to_contain_text("no error")

    path = project / evaluate.ERROR_MAP
    rows = [line.split(",") for line in path.read_text().splitlines()]
    exact = [rows[0], *([*row[:3], "0", *row[4:]] for row in rows[1:])]
    path.write_text("".join(",".join(row) + "\n" for row in exact))
    dvc(project, "plots", "show")
    with start_browser() as browser, open_page(browser, address) as page:
        expect(page.locator("svg.marks").last).to_contain_text("no error in 100 equations")
