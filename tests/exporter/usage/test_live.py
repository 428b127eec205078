"""The last minutes are shown beside the numbers, never in them, until the next roll-up."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts.minutes import OTHER, MinuteCell
from exporter.usage import live, stored
from exporter.usage.handler import make_handler
from exporter.usage.page import Pipeline, render, with_live
from exporter.usage.questions import PRESETS
from tests.builders import Context
from tests.exporter.usage.test_page import HOSTILE, Page
from tests.exporter.usage.usage_lake import Lake, WatchedBucket
from tests.exporter.usage.usage_rows import START, rolled, row

NOW = START + timedelta(days=3, hours=12, minutes=20)
FIRST = int(NOW.timestamp()) // 60 - 10


def cell(ago: int, route: str | None = "/pets", status: int = 200) -> MinuteCell:
    return (int(NOW.timestamp()) // 60 - ago, "GET", route, status)


@given(
    st.dictionaries(
        st.builds(
            cell,
            st.integers(-2, 130),
            st.sampled_from(["/a", "/b", OTHER]),
            st.sampled_from([0, 200, 429, 500]),
        ),
        st.integers(1, 9),
        max_size=20,
    )
)
@settings(max_examples=60)
def test_minutes_and_their_sum_have_the_requests_of_the_time_and_no_others(
    counts: dict[MinuteCell, int],
) -> None:
    first = live.since(NOW - timedelta(minutes=10, seconds=7), NOW)
    shown = live.summarize(counts, first, NOW)

    expected = dict.fromkeys(("requests", "client_errors", "failures", "rate_limited", "auth_failures"), 0)
    for (minute, _, _, status), requests in counts.items():
        if int(first.timestamp()) // 60 <= minute <= int(NOW.timestamp()) // 60:
            expected["requests"] += requests
            expected["client_errors"] += requests * (status == 429)
            expected["rate_limited"] += requests * (status == 429)
            expected["failures"] += requests * (status == 500)
    if not expected["requests"]:
        assert shown is None
        return
    assert shown is not None
    assert shown["total"] == expected
    assert [each["start"] for each in shown["minutes"]] == [
        f"{first + timedelta(minutes=number):%Y-%m-%dT%H:%M:00Z}" for number in range(12)
    ]
    for name, value in expected.items():
        assert sum(each[name] for each in shown["minutes"]) == value
    assert OTHER not in {each["route"] for each in shown["routes"]}


def test_at_most_two_hours_are_shown_and_the_busiest_routes() -> None:
    first = live.since(NOW - timedelta(days=2), NOW)
    assert NOW - first == timedelta(hours=2)

    shown = live.summarize({cell(1, f"/{number}"): 10 + number for number in range(20)}, first, NOW)

    assert shown is not None
    assert [each["route"] for each in shown["routes"]] == [f"/{number}" for number in range(19, 13, -1)]


@pytest.mark.parametrize(
    ("length", "each"),
    [(1, "minute by minute"), (14, "minute by minute"), (66, "5 minutes"), (121, "10 minutes")],
)
def test_many_minutes_are_few_bars_with_all_requests(length: int, each: str) -> None:
    counts = {cell(ago): ago + 1 for ago in range(length)}
    shown = live.summarize(counts, NOW - timedelta(minutes=length - 1), NOW)
    html = with_live(render([rolled([], START)], Pipeline(NOW)), shown)

    table = html.partition('aria-label="The last minutes"')[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(\d\d:\d\d)<td>([\d,]+)<td>', table)
    assert f", {each}</h3>" in html.replace(", each ", ", ")
    assert len(rows) <= 14
    assert rows[0][0] == f"{NOW - timedelta(minutes=length - 1):%H:%M}"
    assert sum(int(count.replace(",", "")) for _, count in rows) == sum(counts.values())


def summary(lake: Lake, range_: str = "7d") -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(lake.bucket[stored.view_key("summary", range_)])))


def test_the_last_minutes_are_in_the_page_and_the_answers_until_the_next_roll_up() -> None:
    lake = Lake([row(START + timedelta(days=3, hours=2))], NOW)
    handler = make_handler(lake.roller, report=lambda _done: None)
    lake.minutes = Counter({cell(3): 4, cell(2, status=503): 1})
    assert handler({"last_minutes": True}, Context()) == {"requests": 0}
    assert not lake.bucket, "there is nothing to add them to before the first roll-up"

    lake.minutes = Counter()
    lake.roll()
    page, total = lake.bucket[stored.PAGE], summary(lake)["total"]
    assert summary(lake)["live"] is None
    assert b"minute by minute" not in page

    lake.minutes = Counter({cell(3): 4, cell(2, status=503): 1, cell(30): 7})
    assert handler({"last_minutes": True}, Context()) == {"requests": 5}

    for range_ in PRESETS:
        shown = summary(lake, range_)
        assert (shown["live"]["total"]["requests"], shown["live"]["total"]["failures"]) == (5, 1)
        assert shown["live"]["from"] == f"{NOW - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
    assert summary(lake)["total"] == total
    html = lake.bucket[stored.PAGE].decode()
    assert "5 requests, 0 with 4xx, 1 failed" in html
    assert with_live(html, None).encode() == page

    lake.now += timedelta(hours=1)
    lake.minutes = Counter()
    lake.roll()
    assert summary(lake)["live"] is None
    assert "minute by minute" not in lake.bucket[stored.PAGE].decode()


def test_a_roll_up_of_the_same_hour_shows_them_as_well() -> None:
    lake = Lake([row(START + timedelta(days=3, hours=2))], NOW)
    lake.minutes = Counter({cell(3): 4})

    lake.roll()

    assert summary(lake)["live"]["total"]["requests"] == 4
    assert "4 requests" in lake.bucket[stored.PAGE].decode()


def test_what_a_roll_up_writes_meanwhile_stays() -> None:
    class Overtaken(WatchedBucket):
        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if key.startswith(stored.PREFIX):
                self[key] = b"the roll-up's"
            return super().replace(key, body, tag)

    lake = Lake([row(START + timedelta(days=3, hours=2))], NOW)
    lake.roll()
    lake.bucket = Overtaken()
    written = Lake([row(START + timedelta(days=3, hours=2))], NOW)
    written.roll()
    lake.bucket.update(written.bucket)
    lake.minutes = Counter({cell(3): 4})

    lake.roller.show_last_minutes()

    assert lake.bucket[stored.PAGE] == b"the roll-up's"
    assert lake.bucket[stored.view_key("summary", "7d")] == b"the roll-up's"


@pytest.mark.parametrize("name", HOSTILE)
def test_text_of_callers_in_the_last_minutes_is_text(name: str) -> None:
    shown = live.summarize({cell(1, name): 3}, NOW - timedelta(minutes=5), NOW)
    html = render([rolled([row(START)], START)], Pipeline(NOW))

    page = Page(with_live(html, shown))

    assert name in page.names
    assert len(page.scripts) == 2
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Page(html).elements} | {"figure"}


def test_a_page_keeps_its_text_behind_the_last_minutes_of_any_route() -> None:
    html = render([rolled([row(START, "<!--/live-->")], START)], Pipeline(NOW))
    shown = live.summarize({cell(1, "<!--/live--><!--live-->"): 3}, NOW - timedelta(minutes=5), NOW)

    assert with_live(with_live(with_live(html, shown), shown), None) == html
