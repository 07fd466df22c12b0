"""Take the docs' pictures of the playground, MLflow and DVC's plots, in Debian's Chromium.

    make screenshots      python -m scripts.screenshots

Writes docs/assets/{playground-*,mlflow-*,dvc-plots}.png. The versions shown are in a store of their
own: two experiments and the committed pipeline, minutes each the first time, then from DVC's cache.
"""

import json
import os
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from arithmetic.errors import UserError, cli_errors
from registry import MODEL_NAME
from registry.client import open_client
from registry.promotion import promote
from scripts.experiment import ROOT, dvc
from scripts.experiment import run as run_experiment
from scripts.quickstart import local_service, reproduce_and_promote
from scripts.server_process import build_mlflow, request

ASSETS = ROOT / "docs" / "assets"
EXPERIMENTS = ("positional-attention", "grpo")  # versions 1 and 2
EQUATION, TOKEN = "951+11=", "carry, tens"
QUESTIONS = (40, 90, 150, 60, 200, 120)  # in turn; enough for the drift
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 1080}}
PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 812}, "device_scale_factor": 2}
PICTURES: dict[str, dict[str, Any]] = {
    "light": DESKTOP,
    "dark": DESKTOP | {"color_scheme": "dark"},
    "phone": PHONE,
}
MLFLOW: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
# Its pages for training instead of those for GenAI, and no chat over them.
MLFLOW_SETTINGS = """
localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
CHARTS = "validation/(loss|exact_match)|evaluation/(errors|minimum_margin)$"


def take_playground(browser: Browser, address: str, name: str) -> None:
    """Write one picture of a chosen token."""
    with browser.new_page(reduced_motion="reduce", **PICTURES[name]) as page:
        page.goto(f"{address}/#{EQUATION}")
        for count in QUESTIONS:
            for _ in range(count):
                a, b = random.randint(0, 999), random.randint(0, 999)
                request(f"{address}/predict", {"equation": f"{a}{random.choice('+-')}{b}="})
            page.wait_for_timeout(2100)  # a point of the curve
        expect(page.locator("#live")).to_contain_text(re.compile("stable|shift"))
        page.get_by_role("button", name="Ask").click()
        page.wait_for_timeout(500)
        page.locator(f".tile[aria-label*='{TOKEN}']").click()
        save(page, f"playground-{name}")


def take_mlflow(browser: Browser, address: str) -> None:
    """Write the pictures of a run, two compared runs, the charts of all, and the model."""
    versions = open_client().search_model_versions(f"name = '{MODEL_NAME}'")
    _, grpo, committed = (v.run_id for v in sorted(versions, key=lambda v: int(v.version)))
    with browser.new_page(**MLFLOW) as page:
        page.add_init_script(MLFLOW_SETTINGS)

        def show(path: str, text: str) -> None:
            page.goto(f"{address}/#/{path}")
            page.get_by_text(text).first.wait_for(timeout=120_000)
            page.add_style_tag(content="[data-assistant-ui] {display: none}")

        show(f"experiments/1/runs/{committed}", "evaluation/errors")
        save(page, "mlflow-run")
        page.set_viewport_size({"width": 1280, "height": 1180})
        show(f"compare-runs?runs={json.dumps([committed, grpo])}&experiments=[%221%22]", "Run ID:")
        page.get_by_text("Visualizations").click()
        for switch in page.get_by_role("switch").all()[:2]:  # of params and of metrics
            switch.click()
        page.get_by_text("Comparing").scroll_into_view_if_needed()
        save(page, "mlflow-compare")
        show(f"models/{MODEL_NAME}", "Version 1")
        save(page, "mlflow-model")
        show("experiments/1/runs?compareRunsMode=CHART", EXPERIMENTS[0])
        page.get_by_placeholder("Search metric charts").fill(CHARTS)
        save(page, "mlflow-charts")


def take_plots(browser: Browser, folder: Path) -> None:
    """Write the picture of the page of `dvc plots show`."""
    if dvc("plots", "show", "-q", "-o", str(folder)):
        raise UserError("dvc plots show failed (see above)", "fix that and run this again")
    with browser.new_page(viewport={"width": 1020, "height": 800}) as page:
        page.goto((folder / "index.html").as_uri())
        save(page, "dvc-plots", full_page=True)


def save(page: Page, name: str, **options: Any) -> None:
    """Write the picture of a page after what it still draws."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(3000)
    path = ASSETS / f"{name}.png"
    page.screenshot(path=path, **options)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB", flush=True)


def register_versions(folder: Path) -> None:
    """Fill a store in `folder`, which is that of this process from now on."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    for name in EXPERIMENTS:
        run_experiment(name)
    promote("1", ROOT, "the first exact version")
    reproduce_and_promote()


def main() -> None:
    """Take all pictures."""
    with cli_errors():
        chromium = shutil.which("chromium")
        if chromium is None:
            raise UserError("there is no chromium", "as root: apt-get install chromium")
        with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
            folder = Path(scratch)
            register_versions(folder)
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            take_plots(browser, folder / "plots")
            with build_mlflow(folder) as mlflow:
                take_mlflow(browser, mlflow.address)
            with local_service() as address:
                for name in PICTURES:
                    take_playground(browser, address, name)
            browser.close()


if __name__ == "__main__":
    main()
