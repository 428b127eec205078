"""The page in Debian's Chromium: accessible in every mode, within its policy, usable without script."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from consumers.accounts.minutes import MinuteCell
from exporter.usage import questions
from exporter.usage.live import summarize
from exporter.usage.page import SHOWN_ROUTES, render, with_live
from exporter.usage.texts import percent
from tests.exporter.usage.test_page import HOSTILE, NOW, PIPELINE, ROLLUPS
from tests.exporter.usage.usage_rows import rolled, row

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")

MODES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
    "phone, dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a network."""
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the page is, with routes and clients of hostile names among the others."""
    start = ROLLUPS[-1].end
    hostile = rolled(
        [row(start, f"{name} {number}", name) for number in range(3) for name in HOSTILE], start, 1
    )
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    minute = int(start.timestamp()) // 60
    counts: dict[MinuteCell, int] = {
        (minute, "GET", name, status): 3 for name in HOSTILE for status in (200, 404, 500)
    }
    last = summarize(counts, start - timedelta(minutes=30), start)
    html = with_live(render([*ROLLUPS, hostile], PIPELINE, title=HOSTILE[0]), last)
    path.write_text(html, encoding="utf-8")
    # axe is a script, so it cannot look at a page for which scripts are turned off.
    without = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    path.with_name("without-script.html").write_text(without, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def messages() -> list[str]:
    """What the browser's console says."""
    return []


def opened(browser: Any, address: str, messages: list[str], **mode: Any) -> Any:
    """Return the page in a mode; its messages and requests to elsewhere are kept."""
    page = browser.new_context(**mode).new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: messages.extend({request.url} - {address, "data:,"}))
    page.goto(address)
    return page


@pytest.mark.parametrize(
    "case",
    [
        *(("screen", mode, "report") for mode in MODES),
        *(("print", mode, "report") for mode in ("light", "dark")),
        *(("screen", mode, "without-script") for mode in ("light", "phone")),
    ],
)
def test_no_rule_of_axe_is_broken(
    browser: Any, address: str, messages: list[str], case: tuple[str, str, str]
) -> None:
    media, mode, file = case
    page = opened(browser, address.replace("report.html", f"{file}.html"), messages, **MODES[mode])
    page.emulate_media(media=media)
    for name in ("24h", "90d"):
        if media == "screen":
            page.locator(f"label[for=range-{name}]").click()
        for summary in page.locator("summary:visible").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []
    assert messages == []


def test_the_script_sorts_filters_and_shows_all(browser: Any, address: str, messages: list[str]) -> None:
    page = opened(browser, address, messages, **MODES["light"])
    table, tools = page.locator("#routes-7d"), page.locator('.tools[data-kind="routes"][data-range="7d"]')
    rows = table.locator("tbody tr")
    asked = questions.period(ROLLUPS, questions.preset("7d", NOW))
    expected = questions.routes(asked)
    assert rows.count() == SHOWN_ROUTES

    tools.get_by_role("button", name="Show all").click()
    assert rows.count() == len(expected) + 3 * len(HOSTILE)
    counts = [int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == sum(each["requests"] for each in expected) + 3 * len(HOSTILE)

    table.get_by_role("button", name="p95").click()
    slowest = max(expected, key=lambda each: each["p95_ms"])
    assert slowest["route"] in rows.nth(0).inner_text()
    assert table.locator("th[aria-sort=descending]").inner_text() == "p95"
    table.get_by_role("button", name="Route").click()
    names = [text.lower() for text in table.locator("tbody th").all_inner_texts()]
    assert names == sorted(names)

    tools.get_by_role("searchbox").fill("onerror")
    assert rows.count() == 3
    assert page.locator("img").count() == 0
    assert page.evaluate("Object.prototype.toString.call(({}).polluted)") == "[object Undefined]"
    assert messages == []


def test_the_mark_follows_the_pointer_over_all_charts(
    browser: Any, address: str, messages: list[str]
) -> None:
    page = opened(browser, address, messages, **MODES["light"])
    field = page.locator(".of-7d .field").first
    box = field.bounding_box()

    page.mouse.move(box["x"] + box["width"] * 2.5 / 28, box["y"] + 20)

    row_text = page.locator(".of-7d .numbers tbody tr").nth(2).locator("th").text_content()
    assert page.locator("#readout strong").inner_text() == row_text.strip()
    assert page.locator(".of-7d .hover").count() == 3
    _, *shown = page.locator("#readout").inner_text().split("\n")
    named = dict(zip(shown[::2], shown[1::2], strict=True))
    for name in ("4xx", "5xx, no answer"):
        part, whole = (int(named[each].replace(",", "")) for each in (name, "Requests"))
        assert named[f"{name}: rate"] == percent(part / whole, 1), "the script adds the rates"
    page.mouse.move(5, 5)
    assert page.locator("#readout").is_hidden()
    assert messages == []


def test_the_bars_are_drawn_as_high_as_the_requests(browser: Any, address: str, messages: list[str]) -> None:
    page = opened(browser, address, messages, **MODES["light"])
    texts = page.locator(".of-30d .numbers tbody td:nth-child(2)").all_text_contents()
    counts = [int(text.replace(",", "")) for text in texts]
    page.locator("label[for=range-30d]").click()
    # The shape at the back is as high as all requests: its box is as high as the largest bar.
    shape = page.locator(".of-30d .bars .field svg path").first.bounding_box()
    field = page.locator(".of-30d .bars .field").first.bounding_box()
    top = int(page.locator(".of-30d .bars .side text").last.text_content().replace(",", ""))

    assert shape["height"] == pytest.approx(max(counts) / top * field["height"], abs=2)
    assert messages == []


def test_without_script_the_ranges_can_be_chosen(browser: Any, address: str, messages: list[str]) -> None:
    page = opened(browser, address, messages, **MODES["light"], java_script_enabled=False)

    assert page.locator("#routes-7d").is_visible()
    page.locator("label[for=range-90d]").click()
    assert page.locator("#routes-90d").is_visible()
    assert page.locator("#routes-7d").is_hidden()
    assert page.locator(".tools:visible").count() == 0
    assert page.locator("#routes-90d tbody tr").count() == SHOWN_ROUTES + 1


def test_all_controls_can_be_reached_by_keyboard(browser: Any, address: str, messages: list[str]) -> None:
    page = opened(browser, address, messages, **MODES["light"])
    reached: set[str] = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("`${document.activeElement.tagName} ${document.activeElement.textContent.trim()}`")
        )

    for text in ("A Skip to the numbers", "INPUT ", "BUTTON p95", "BUTTON Show all", "SUMMARY Day by day"):
        assert text in reached
    page.locator("#range-7d").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#routes-30d").is_visible()
