"""Open pages in Debian's Chromium."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.screenshots import FLAGS

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed"
)


@contextmanager
def start_browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # on a busy machine
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM or "/usr/bin/chromium", args=FLAGS
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, address: str, errors: str = "^$", **options: Any) -> Iterator[Page]:
    """Open a page; fail on requests to other addresses and on errors in the console.

    Args:
        errors: a pattern of console errors that the test causes.
    """
    context = browser.new_context(**{"reduced_motion": "reduce", **options})
    page = context.new_page()
    requests: list[str] = []
    console_errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    page.on("console", lambda m: console_errors.append(m.text) if m.type == "error" else None)
    page.goto(address)
    yield page
    context.close()
    origin = address.partition("#")[0]
    assert [url for url in requests if not url.startswith(origin)] == []
    assert [error for error in console_errors if not re.search(errors, error)] == []
