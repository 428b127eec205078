"""The page shows the answers' numbers, runs only what is its own, and takes text from callers as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.usage import questions
from exporter.usage.page import MOST_ROUTES, SHOWN_ROUTES, Pipeline, render
from exporter.usage.questions import DAY, HOUR, PRESETS
from exporter.usage.rollup import Completeness, RollUp
from tests.exporter.usage.usage_rows import START, TYPE, rolled, row, traffic

VOID = {"meta", "link", "input"}
# Their end may be left out: https://html.spec.whatwg.org/multipage/syntax.html#optional-tags
OPTIONAL = {"tr", "td", "th", "thead", "tbody"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg onload=alert(1)>",
    "=cmd()",
    "{{ 7 * 7 }}",
    "__proto__",
    "\u202egnp.exe",
    "<!--",
    "🐈" * 75,
)


class Page(HTMLParser):
    """A page, read by a parser: elements, ids, links, and the text of the elements that are asked for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.names: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._table = ""
        self.feed(html)
        self.close()
        assert self._open == [], "each element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in VOID | OPTIONAL:
            self._open.append(tag)
        if tag == "table":
            self._table = found.get("id") or ""
        elif tag == "tr":
            self.rows.setdefault(self._table, []).append([])
        elif tag in {"td", "th"}:
            self.rows[self._table][-1].append("")
        elif tag == "bdi":
            self.names.append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element without content."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        if tag == "table":
            self._table = ""
        if tag not in OPTIONAL:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep text."""
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside == "style":
            self.styles.append(data)
        if inside == "bdi":
            self.names[-1] += data
        rows = self.rows.get(self._table)
        if rows and rows[-1] and "table" in self._open:
            rows[-1][-1] += data

    def all(self, name: str) -> list[str]:
        """Return an attribute's values."""
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


def hourly(day: int, rows: list[tuple[str | None, ...]], hours: int = 24) -> list[RollUp]:
    """Return a day's roll-ups by hour, up to an hour."""
    starts = [START + day * DAY + hour * HOUR for hour in range(hours)]
    return [
        rolled([each for each in rows if str(each[0]).startswith(f"{start:%Y-%m-%d %H}")], start, 1)
        for start in starts
    ]


DAYS = traffic(16, routes=40, clients=60, requests=500, seed=4)
ROLLUPS = [
    *(rolled(DAYS[day], START + day * DAY) for day in range(13)),
    *(each for day in (13, 14) for each in hourly(day, DAYS[day])),
    *hourly(15, DAYS[15], 16),
]
NOW = START + 15 * DAY + 16 * HOUR
PIPELINE = Pipeline(NOW + timedelta(minutes=7), lag_s=2.5, quarantined={"late": 3})
HTML = render(ROLLUPS, PIPELINE, title="Pets API")
PAGE = Page(HTML)


def small(name: str, *, timed: bool = True) -> str:
    """Return the page of a day in which a route, a client and an exception have a name."""
    duration_ms = 12.5 if timed else None
    rows = [
        row(START, name, name, method=name, error_type=name, status=500, duration_ms=duration_ms, size=10)
    ]
    return render([rolled(rows, START)], Pipeline(START + DAY, quarantined={name: 1}), title=name)


def test_the_page_loads_nothing_and_runs_only_its_own() -> None:
    assert PAGE.all("src") == PAGE.all("style") == PAGE.all("srcset") == PAGE.all("action") == []
    assert {value for value in PAGE.all("href") if not value.startswith("#")} == {"data:,"}
    assert [name for _, attributes in PAGE.elements for name in attributes if name.startswith("on")] == []
    assert "url(" not in HTML
    assert "@import" not in HTML
    (policy,) = (
        each["content"] or "" for _, each in PAGE.elements if "Security" in (each.get("http-equiv") or "")
    )
    (style,), (_, script) = PAGE.styles, PAGE.scripts
    for directive, source in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_each_link_has_its_target_and_each_id_is_there_once() -> None:
    ids = PAGE.all("id")

    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in PAGE.all("href") if value.startswith("#")}
    referred = {each for name in ("aria-labelledby", "aria-describedby", "for") for each in PAGE.all(name)}
    assert (targets | referred) - set(ids) == set()
    for term in ("request", "failure", "availability", "percentile", "lost", "quarantined", "change"):
        assert term in ids


@pytest.mark.parametrize("name", PRESETS)
def test_the_tables_have_the_answers_numbers_and_add_up(name: str) -> None:
    asked = questions.period(ROLLUPS, questions.preset(name, NOW))
    requests = questions.summary(asked)["total"]["requests"]
    assert f'<span class="value">{requests:,}</span>' in HTML

    clients = len({each["client"] for each in questions.clients(asked)})
    assert f"Most active of {clients}" in HTML
    for kind, answer in (("routes", questions.routes(asked)), ("clients", questions.clients(asked))):
        shown = PAGE.rows[f"{kind}-{name}"][1:]
        counts = [int(cells[1].replace(",", "")) for cells in shown]
        assert sum(counts) == requests
        hidden = len(answer) - (len(shown) - 1)
        assert shown[-1][0] == f"{hidden} more {kind}"
        assert counts[:-1] == [each["requests"] for each in answer[: len(counts) - 1]]


def test_the_script_has_the_rows_that_the_tables_leave_out() -> None:
    more = json.loads(PAGE.scripts[0])

    for name in PRESETS:
        asked = questions.period(ROLLUPS, questions.preset(name, NOW))
        answer = questions.routes(asked)[SHOWN_ROUTES:MOST_ROUTES]
        requests, *_ = (column.split("|") for column in more["routes"]["ranges"][name])
        found = {
            tuple(key): count for key, count in zip(more["routes"]["names"], requests, strict=True) if count
        }
        assert found == {(each["method"], each["route"], True): f"{each['requests']:,}" for each in answer}


def test_each_part_of_a_chart_has_a_row_in_its_table() -> None:
    tables = re.findall(r'<div class="panel numbers">.*?</table>', HTML, re.DOTALL)

    assert [table.count("<tr>") - 1 for table in tables] == [24, 28, 30, 90]
    for name, table in zip(PRESETS, tables, strict=True):
        asked = questions.period(ROLLUPS, questions.preset(name, NOW))
        counts = [
            int(text.replace(",", "")) for text in re.findall(r'<th scope="row">[^<]*<td>([\d,]+)', table)
        ]
        assert counts == [part["requests"] for part in questions.series(asked)]
    pictures = [attributes for tag, attributes in PAGE.elements if attributes.get("role") == "img"]
    assert len(pictures) == 3 * len(PRESETS)


def test_what_is_known_of_completeness_is_shown() -> None:
    assert "Complete until <strong>16 Nov 2026, 16:00 UTC</strong>" in HTML
    assert "3 late" in HTML
    assert ">7 minutes<" in HTML
    assert "Changes compare 10 to 15 Nov 2026 with 3 to 8 Nov 2026, equally long." in HTML
    assert "There are no records of the 90 days before to compare with." in HTML

    unknown = RollUp(START, START + DAY, TYPE, START + DAY, rolled([], START).usage, 1, Completeness(None, 2))
    html = render([unknown], Pipeline(START + 3 * DAY))
    assert "Lost</a>: not known" in html
    assert "Quarantined</a>: 2" in html
    assert 'class="state late"' in html
    assert 'class="state late"' not in render([unknown], Pipeline(START + 3 * DAY, running=False))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("timed", [True, False])
def test_hostile_text_is_text(name: str, timed: bool) -> None:
    harmless = Page(small("x", timed=timed))

    page = Page(small(name, timed=timed))

    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert set(page.names) == {name}
    assert len(page.scripts) == 2


@settings(max_examples=30)
@given(st.text())
def test_any_text_is_text(name: str) -> None:
    harmless = Page(small("x"))

    page = Page(small(name))

    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements] or not name


def test_rows_beyond_the_tables_are_safe_in_the_script_element() -> None:
    hostile = [f"{name} {number}" for number in range(4) for name in HOSTILE]
    rows = [row(START, name, name) for name in hostile]

    page = Page(render([rolled(rows, START)], Pipeline(START + DAY)))

    more = json.loads(page.scripts[0])
    beyond = [name for _, name, _ in more["routes"]["names"]]
    assert len(beyond) == len(hostile) - SHOWN_ROUTES
    assert set(beyond) <= set(hostile)
    assert not set("<>&") & set(page.scripts[0])


def test_a_page_without_durations_shows_sizes_instead() -> None:
    html = small("/pets", timed=False)

    assert "Response time" not in html
    assert "Data sent" in html
    assert ">10 B<" in html


def test_there_is_no_page_of_nothing() -> None:
    with pytest.raises(ValueError, match="no roll-ups: run the roll-up first"):
        render([], PIPELINE)


def test_lines_of_charts_can_be_told_from_the_panel_in_both_themes() -> None:
    """WCAG 2.2, 1.4.11: 3 to 1 for graphics. axe does not look inside of SVG."""
    (style,) = PAGE.styles
    light, dark = (
        dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})\b", part)) for part in style.split(":root{")[1:3]
    )
    for theme in (light, {**light, **dark}):
        for name in ("ok", "redirect", "client", "failed", "none", "p50", "p95", "p99"):
            assert contrast(theme[name], theme["panel"]) >= 3, name


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Return a colour's relative luminance."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_first_range_is_the_chosen_one() -> None:
    assert re.findall(r'id="range-(\w+)" checked', HTML) == ["7d"]
    assert re.findall(r'id="range-(\w+)" checked', render(ROLLUPS, PIPELINE, chosen="30d")) == ["30d"]
    assert isinstance(PIPELINE.written_at, datetime)
