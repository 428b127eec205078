"""The documentation as a site: builds without warnings, loads nothing from elsewhere, and is accessible."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
MODES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "phone, dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}
PAGES = ("", "how-to/first-record/", "how-to/tune-the-consumer/", "decisions/")
# Elements that the theme writes: its search dialog, its copy buttons, its boxes around wide tables.
THEME = {"aria-dialog-name", "landmark-unique", "scrollable-region-focusable"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))

    assert len(pages) > 50
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//", page.read_text()
        )
        assert loaded == [], page


@pytest.mark.parametrize("mode", MODES)
def test_pages_are_accessible_and_nothing_is_cut_off(browser: Any, site: Path, mode: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_context(**MODES[mode]).new_page()
    for name in PAGES:
        page.goto((site / name / "index.html").as_uri())
        pictures = "[...document.querySelectorAll('article img')]"
        assert page.evaluate(f"{pictures}.every(each => each.complete && each.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = axe.Axe().run(page).response["violations"]
        broken = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert [each for each in broken if each[0] not in THEME] == [], name
