"""The page in a real browser: it opens without a complaint, its filter filters, it fits screens and paper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnfold.report.page import html
from tests.report.findings.outcome import EVERYTHING
from tests.report.page.test_pairs import compared, timed
from tests.report.sample_page import NASTY, row, sample

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402 - behind the question whether it is there
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

ARGUMENTS = """--headless=new --no-sandbox --disable-gpu --disable-background-networking --no-first-run
    --disable-component-update --disable-sync --disable-dev-shm-usage"""
SITES = 60
KEPT = SITES // 7


def _program(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = _program("chromium", "chromium-browser", "google-chrome"), _program("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with chromedriver is installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS.split():
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    path = tmp_path_factory.mktemp("page") / "page.html"
    html.write(html.render(sample(SITES)), path)
    opened.page_path = path
    yield opened
    opened.quit()


@pytest.fixture
def page(browser: Any) -> Any:
    """The page as it opens, on a desktop, in light."""
    emulate(browser, 1280, "light")
    browser.get(browser.page_path.as_uri())
    return browser


def emulate(browser: Any, width: int, scheme: str, media: str = "") -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def visible(page: Any) -> list[str]:
    """The fates of the rows that are shown."""
    found: list[str] = page.execute_script(
        "return [...document.querySelectorAll('#sites-table tbody tr')]"
        ".filter((row) => row.getClientRects().length).map((row) => row.dataset.status)"
    )
    return found


def style(page: Any, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    found: str = page.execute_script(script, selector, name)
    return found


def test_it_opens_without_a_complaint_and_fetches_nothing(page: Any) -> None:
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {
        event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"
    }
    assert all(Path(url).name in ("page.html", "data:,") for url in asked), asked


def test_a_name_that_is_a_script_is_text(page: Any) -> None:
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1
    names = page.find_elements(By.CSS_SELECTOR, "#sites-table code")
    assert any(name.get_attribute("textContent") == NASTY for name in names)


def test_the_policy_stops_a_script_that_was_slipped_in(page: Any) -> None:
    page.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.slipped = 1'; document.body.append(script)"
    )
    assert page.execute_script("return window.slipped") is None
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_the_filter_finds_by_text(page: Any) -> None:
    assert len(visible(page)) == SITES
    query = page.find_element(By.ID, "query")
    query.send_keys("LAYER12. conv")
    assert len(visible(page)) == 1
    assert page.find_element(By.ID, "shown").text == f"1 of {SITES} shown"
    query.clear()
    query.send_keys("BN301")
    assert visible(page) == ["kept"] * KEPT
    query.clear()
    query.send_keys("no such thing", Keys.ENTER)
    assert visible(page) == []
    assert page.current_url.endswith("page.html"), "Enter sends no form"


def test_the_filter_finds_by_fate_and_both_count(page: Any) -> None:
    page.find_element(By.CSS_SELECTOR, "button[data-status=kept]").click()
    assert visible(page) == ["kept"] * KEPT
    assert (
        page.find_element(By.CSS_SELECTOR, "button[aria-pressed=true]").get_attribute("data-status") == "kept"
    )
    page.find_element(By.ID, "query").send_keys("layer6.")
    assert visible(page) == ["kept"]
    page.find_element(By.CSS_SELECTOR, "button[data-status='']").click()
    assert len(visible(page)) == 1


def test_everything_can_be_reached_by_keyboard(page: Any) -> None:
    reached = []
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        reached.append(focused.get_attribute("data-status") or focused.get_attribute("id") or focused.text)
        assert style(page, ":focus", "outlineStyle") != "none", f"{reached[-1]} shows no focus"
        if reached[-1] == "kept":
            focused.send_keys(Keys.SPACE)
            break
    assert reached[0] == "Skip to the report"
    assert reached[-3:] == ["folded", "merged", "kept"]
    assert visible(page) == ["kept"] * KEPT


def test_columns_sort_both_ways(page: Any) -> None:
    heading = page.find_element(By.CSS_SELECTOR, "#sites-table th:nth-child(4)")
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert visible(page)[0] == "folded"
    heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"
    assert visible(page)[0] == "merged"
    page.find_element(By.CSS_SELECTOR, "#sites-table th:nth-child(1) button").click()
    places = "[...document.querySelectorAll('#sites-table .place')]"
    script = f"return {places}.map((cell) => Number(cell.textContent))"
    assert page.execute_script(script) == list(range(1, SITES + 1))


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_the_page_is_no_wider_than_the_screen(page: Any, width: int) -> None:
    emulate(page, width, "light")
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    fates = "[...document.querySelectorAll('#sites-table .fate')]"
    wide = f"return {fates}.some((it) => it.scrollWidth > it.clientWidth)"
    assert not page.execute_script(wide), "a fate is cut off"
    shown = {name: style(page, f".{name}", "display") for name in ("wide", "narrow")}
    assert shown == (
        {"wide": "none", "narrow": "block"} if width < 640 else {"wide": "block", "narrow": "none"}
    )


PAGES = {
    "export": lambda: html.render(sample(6)),
    "validate": lambda: html.render(compared()),
    "bench": lambda: html.render(timed(row("default"), row("off"))),
    "check": lambda: html.of_check(EVERYTHING, command="bnfold check"),
}


@pytest.mark.parametrize("command", PAGES)
def test_the_verdict_is_on_the_first_screen_of_a_phone(page: Any, command: str, tmp_path: Path) -> None:
    """And a short name of a file does not push it down: one of 60 characters takes three lines."""
    path = tmp_path / "page.html"
    html.write(PAGES[command]().replace("<h1>", f"<h1>{'network.' * 6}"), path)
    for width in (390, 1280):
        emulate(page, width, "light")  # 800 high
        page.get(path.as_uri())
        page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        bottom = page.execute_script(
            "return document.querySelector('.verdict h2').getBoundingClientRect().bottom"
        )
        assert bottom < 800 / 2, f"{width}: {bottom}"
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_verdict_of_each_row_is_seen_without_scrolling_the_table(page: Any) -> None:
    emulate(page, 390, "light")
    for table in ("#error", "#latency"):
        edge = page.execute_script(
            "const badge = document.querySelector(`${arguments[0]} .badge`);"
            "return badge.getBoundingClientRect().right",
            table,
        )
        assert edge <= 390, f"{table}: {edge}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, scheme: str) -> None:
    emulate(page, 1280, scheme)
    ground = style(page, "body", "backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    for text, under in (
        ("body", "body"), (".maker", "body"), ("nav a", "body"), (".note", ".tiles"),
        ("thead th", "thead th"), ("tr.missing td", ".scroll"), (".operator", ".scroll"),
        (".verdict h2", ".verdict"), (".verdict p", ".verdict"), (".badge.good", ".badge.good"),
        (".badge.warn", ".badge.warn"), (".warning strong", ".warning"), (".remedy", ".scroll"),
        ("button[aria-pressed=true]", "button[aria-pressed=true]"), ("#shown", "body"), ("#query", "#query"),
        (".absent", "body"),
    ):  # fmt: skip
        ratio = contrast(style(page, text, "color"), style(page, under, "backgroundColor"))
        assert ratio >= 4.5, f"{text} on {under} in {scheme}: {ratio:.2f}"
    for mark in ("--original", "--folded", "--control", "--bad"):
        probe = f"document.body.style.setProperty('caret-color', 'var({mark})')"
        page.execute_script(probe)
        assert contrast(style(page, "body", "caretColor"), ground) >= 3, f"{mark} in {scheme}"


def luminance(colour: str) -> float:
    """Relative luminance of an opaque `rgb(…)` (WCAG 2.2)."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_paper_shows_all_rows_in_light_without_the_filter(page: Any) -> None:
    page.find_element(By.CSS_SELECTOR, "button[data-status=kept]").click()
    emulate(page, 1280, "dark", media="print")
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(visible(page)) == SITES
    assert style(page, "#filter", "display") == "none"
    assert style(page, ".scroll.long", "maxHeight") == "none"
    assert luminance(style(page, ".verdict", "backgroundColor")) > 0.5
    assert style(page, "html", "colorScheme") == "light"
    assert all(one.get_attribute("open") for one in page.find_elements(By.TAG_NAME, "details"))
    emulate(page, 690, "light", media="print")  # A4 less its margins
    assert page.execute_script("return document.documentElement.scrollWidth") <= 690
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not any(one.get_attribute("open") for one in page.find_elements(By.TAG_NAME, "details"))
    emulate(page, 1280, "light")
    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(printed) > 10_000
