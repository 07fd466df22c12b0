"""The page at /: in a real Chromium, and its headers."""

import hashlib
import re
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from arithmetic import artifacts
from scripts.screenshots import PHONE
from tests.browser import needs_chromium, open_page, start_browser
from tests.random_models import write_model
from tests.serving.service_process import Service, run_service


@pytest.fixture(scope="module")
def models(tmp_path_factory, exact_model):
    """Return two models with random weights; the first has exact decoders."""
    root = tmp_path_factory.mktemp("pages")
    exact, wrong = write_model(root / "exact"), write_model(root / "wrong")
    shutil.copytree(
        exact_model / artifacts.DECODERS, exact / artifacts.DECODERS, dirs_exist_ok=True
    )
    return exact, wrong


@pytest.fixture(scope="module")
def service(tmp_path_factory, models) -> Iterator[Service]:
    with run_service(tmp_path_factory.mktemp("service") / "log", MODEL_URI=models[0]) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


def ask(page: Page, equation: str) -> None:
    page.get_by_label("Equation").fill(equation)
    page.keyboard.press("Enter")


def check_accessibility(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@needs_chromium
def test_a_typed_equation_is_answered_and_explained(browser, service):
    with open_page(browser, service.address) as page:
        ask(page, "95+16=")
        expect(page.locator("#answer")).to_have_text("95+16=111")
        expect(page.locator("#verdict")).to_have_text("✓ right: exact arithmetic says 111")
        expect(page.locator("#latency")).to_contain_text(re.compile(r"answered in \d+\.\d\d ms"))
        tiles = page.get_by_role("group", name="Steps").get_by_role("button")
        expect(tiles).to_have_text([re.compile(f"^{c}") for c in "11110"])
        tiles.first.click()
        expect(page.locator("#token-heading")).to_have_text("1 · carry, ones")
        expect(page.locator("#explanation")).to_have_text("ones: 5 + 6 = 1, carry 1")
        expect(page.locator("#probabilities li")).to_have_count(4)
        expect(page.locator("#heat [role=img]")).to_have_count(8)
        expect(page.locator("#heat [role=img]").first.locator("i")).to_have_count(6)


@needs_chromium
def test_an_example_is_written_token_by_token(browser, service):
    with open_page(browser, service.address, reduced_motion="no-preference") as page:
        page.get_by_role("button", name="carry cascade").click()
        expect(page.locator(".tile.waiting")).not_to_have_count(0)
        expect(page.locator("#answer")).to_have_text("99+1=100")
        expect(page.locator(".tile.waiting")).to_have_count(0)
        assert page.url.endswith("#99+1=")


@needs_chromium
def test_tokens_are_chosen_by_keyboard(browser, service):
    with open_page(browser, service.address) as page:
        expect(page.locator("#token-heading")).to_have_text("END · end")
        page.locator(".tile[tabindex='0']").focus()
        page.keyboard.press("Home")
        expect(page.locator("#token-heading")).to_have_text("1 · carry, ones")
        page.keyboard.press("ArrowRight")
        expect(page.locator(":focus")).to_have_attribute("aria-pressed", "true")
        expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile("digit, ones"))


@needs_chromium
@pytest.mark.parametrize(
    ("equation", "message", "selected"),
    [("12+x=", "'x' at position 4", "x"), ("100+1=", "more than 2 digits", None)],
)
def test_bad_input_is_shown_at_the_field(browser, service, equation, message, selected):
    with open_page(browser, service.address, errors="422") as page:
        ask(page, equation)
        field = page.get_by_label("Equation")
        expect(page.get_by_role("alert")).to_contain_text(message)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(re.escape(message)))
        if selected:
            assert page.evaluate("getSelection().toString()") == selected
        check_accessibility(page)
        ask(page, "1+1=")
        expect(page.get_by_role("alert")).to_be_empty()


@needs_chromium
def test_the_theme_is_the_systems_until_it_is_chosen(browser, service):
    background = "getComputedStyle(document.body).backgroundColor"
    with open_page(browser, service.address, color_scheme="dark") as page:
        dark = page.evaluate(background)
        check_accessibility(page)
        page.get_by_role("button", name="Dark theme").click()
        light = page.evaluate(background)
        assert light != dark
        check_accessibility(page)
        page.reload()
        assert page.evaluate(background) == light


@needs_chromium
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, service):
    with open_page(browser, service.address, **PHONE) as page:
        expect(page.locator("#verdict")).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]
        check_accessibility(page)


@needs_chromium
def test_the_strip_shows_version_and_live_numbers(browser, service):
    with open_page(browser, service.address) as page:
        ask(page, "1+1=")
        expect(page.locator("#version")).to_contain_text("local")
        expect(page.locator("#version dd[title]")).to_have_text(re.compile("^[0-9a-f]{12}$"))
        expect(page.locator("#live")).to_contain_text(re.compile(r"p99\d+\.\d ms"))
        expect(page.locator("#live")).to_contain_text(re.compile(r"0 of [1-9]\d* checked"))


@needs_chromium
def test_a_second_version_is_shown_beside(browser, models, tmp_path):
    with (
        run_service(tmp_path / "other", MODEL_URI=models[1], MAX_ERROR_RATE=1) as other,
        run_service(tmp_path / "log", MODEL_URI=models[0], COMPARE_URL=other.address) as service,
    ):
        with open_page(browser, f"{service.address}#7-12=") as page:
            expect(page.locator("#verdict")).to_have_class("badge right")
            expect(page.locator("#compare-verdict")).to_have_class("badge wrong")
            expect(page.locator("#compare .differs")).not_to_have_count(0)
            check_accessibility(page)
        other.process.terminate()
        other.process.wait(20)
        with open_page(browser, service.address, errors="503") as page:
            expect(page.locator("#compare-note")).to_contain_text("refused")


@needs_chromium
def test_the_page_asks_for_the_key_of_a_closed_service(browser, models, tmp_path):
    keys = f"page={hashlib.sha256(b'secret').hexdigest()}"
    with (
        run_service(tmp_path / "log", MODEL_URI=models[0], API_KEYS=keys) as service,
        open_page(browser, service.address, errors="401") as page,
    ):
        expect(page.get_by_role("alert")).to_contain_text("API key")
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#verdict")).to_contain_text("right")


def test_the_page_allows_no_other_origin_and_no_inline_script(client):
    response = client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert len(addresses) == 5
    for address in addresses:
        assert not address.startswith(("/", "http"))  # a proxy may add a prefix
        assert client.get(f"/{address}").status_code == 200
    assert not re.search(r"<script>|<style|style=|\son\w+=", response.text)


def test_comparing_needs_the_setting(client):
    assert client.post("/compare", json={"equation": "1+1="}).status_code == 404
