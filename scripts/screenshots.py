"""Take screenshots of the page at / with Production, in Debian's Chromium.

    make screenshots      python -m scripts.screenshots

Writes docs/assets/playground-{light,dark,phone}.png.
"""

import random
import re
import shutil
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from arithmetic.errors import UserError, cli_errors
from scripts.experiment import ROOT
from scripts.quickstart import local_service, request

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


def take(browser: Browser, address: str, name: str) -> None:
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
        path = ROOT / "docs" / "assets" / f"playground-{name}.png"
        page.screenshot(path=path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    """Take all pictures."""
    with cli_errors():
        chromium = shutil.which("chromium")
        if chromium is None:
            raise UserError("there is no chromium", "as root: apt-get install chromium")
        with local_service() as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            for name in PICTURES:
                take(browser, address, name)
            browser.close()


if __name__ == "__main__":
    main()
