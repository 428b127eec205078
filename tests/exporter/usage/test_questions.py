"""Answers equal what is counted and sorted from the rows themselves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.usage.buckets import ERROR_BOUND
from exporter.usage.groups import COLUMNS
from exporter.usage.names import COUNTS, MEASURES, RANGES, SORTS
from exporter.usage.questions import (
    DAY,
    HOUR,
    PRESETS,
    Filter,
    Period,
    Range,
    client,
    clients,
    ordered,
    period,
    preset,
    route,
    routes,
    series,
    summary,
    to_csv,
    usage_by_date,
)
from exporter.usage.rollup import Completeness, Limits, RollUp, bounded
from tests.exporter.usage.usage_rows import START, TYPE, Row, rolled, row, traffic

DAYS = traffic(21, routes=12, clients=30, requests=400, seed=2)
ROUTE, CLIENT, METHOD = (COLUMNS.index(name) for name in ("route", "client", "method"))
STATUS, DURATION, BYTES = (COLUMNS.index(name) for name in ("status", "duration_ms", "bytes"))
NOW = START + 20 * DAY + timedelta(hours=15, minutes=20)


def hourly(day: int, through: datetime | None = None) -> list[RollUp]:
    """Return a day's roll-ups by hour, up to the hour that the data end in."""
    found = []
    for number in range(24):
        start = START + day * DAY + number * HOUR
        if through is None or start < through:
            rows = [each for each in DAYS[day] if _time(each) < (through or each_end(start))]
            rows = [each for each in rows if start <= _time(each) < each_end(start)]
            partly = through if through is not None and through < each_end(start) else None
            found.append(rolled(rows, start, 1, through=partly))
    return found


def each_end(start: datetime) -> datetime:
    """Return the end of an hour."""
    return start + HOUR


def _time(each: Row) -> datetime:
    return datetime.fromisoformat(f"{str(each[0])[:19]}+00:00")


# Days as they are kept: by day, and the newest by hour.
ROLLUPS = [
    *(rolled(DAYS[day], START + day * DAY) for day in range(18)),
    *hourly(18),
    *hourly(19),
    *hourly(20, through=NOW),
]


def rows_between(start: datetime, end: datetime) -> list[Row]:
    """Return the rows of a time that had arrived by now."""
    return [each for day in DAYS for each in day if start <= _time(each) < min(end, NOW)]


def asked(name: str) -> Period:
    """Return the numbers of a range that ends now."""
    return period(ROLLUPS, preset(name, NOW))


def exact(values: list[float], share: float) -> float:
    """Return the value at rank `ceil(share * n)`."""
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("24h", NOW.replace(minute=0) - 23 * HOUR, NOW.replace(hour=16, minute=0)),
        ("7d", START + 14 * DAY, START + 21 * DAY),
        ("30d", START - 9 * DAY, START + 21 * DAY),
        ("90d", START - 69 * DAY, START + 21 * DAY),
    ],
)
def test_a_range_ends_with_the_hour_or_day_that_the_data_end_in(
    name: str, start: datetime, end: datetime
) -> None:
    found = preset(name, NOW)

    assert (found.start, found.end) == (start, end)
    assert preset(name, end).end == end, "a range that is over is not made longer"


@pytest.mark.parametrize("name", PRESETS)
def test_the_figures_are_those_of_the_rows(name: str) -> None:
    found = asked(name)
    rows = rows_between(found.range.start, found.range.end)
    statuses = Counter(int(float(each[STATUS] or 0)) for each in rows)
    durations = [float(each[DURATION] or 0) for each in rows]

    answer = summary(found)
    total = answer["total"]

    assert total["requests"] == len(rows) > 0
    assert total["client_errors"] == sum(count for status, count in statuses.items() if 400 <= status < 500)
    assert total["failures"] == sum(count for status, count in statuses.items() if status >= 500)
    assert total["rate_limited"] == statuses[429]
    assert total["auth_failures"] == statuses[401] + statuses[403]
    assert total["availability"] == pytest.approx(1 - total["failures"] / len(rows))
    assert total["mean_ms"] == pytest.approx(sum(durations) / len(durations), rel=1e-4)
    assert total["longest_ms"] == pytest.approx(max(durations), rel=1e-4)
    assert total["bytes"] == sum(int(float(each[BYTES] or 0)) for each in rows)
    for share, figure in ((0.5, "p50_ms"), (0.9, "p90_ms"), (0.95, "p95_ms"), (0.99, "p99_ms")):
        assert total[figure] == pytest.approx(exact(durations, share), rel=ERROR_BOUND + 1e-3)
    assert answer["clients"] == len({each[CLIENT] for each in rows})
    assert answer["routes"] == len({(each[METHOD], each[ROUTE]) for each in rows})
    assert answer["data_through"] == "2026-11-21T15:20:00Z"


@pytest.mark.parametrize(
    ("name", "shift", "until"), [("24h", DAY, NOW.replace(minute=0)), ("7d", 7 * DAY, START + 20 * DAY)]
)
def test_equal_elapsed_times_are_compared(name: str, shift: timedelta, until: datetime) -> None:
    found = asked(name)
    now = rows_between(found.range.start, until)
    before = rows_between(found.range.start - shift, until - shift)

    answer = summary(found)

    assert answer["compared"]["to"] == f"{until:%Y-%m-%dT%H:%M:%SZ}"
    assert answer["compared"]["previous_to"] == f"{until - shift:%Y-%m-%dT%H:%M:%SZ}"
    assert answer["previous"]["requests"] == len(before)
    assert answer["changes"]["requests"] == pytest.approx(len(now) / len(before) - 1)
    failed = [
        sum(1 for each in rows if float(each[STATUS] or 0) >= 500) / len(rows) for rows in (now, before)
    ]
    assert answer["changes"]["failure_rate"] == pytest.approx(failed[0] - failed[1])
    new = {each[CLIENT] for each in rows_between(found.range.start, found.range.end)} - {
        each[CLIENT] for each in before
    }
    assert answer["new_clients"] == len(new)
    for each in routes(found):
        counts = [
            sum(1 for one in rows if (one[METHOD], one[ROUTE]) == (each["method"], each["route"]))
            for rows in (now, before)
        ]
        assert each["previous_requests"] == counts[1]
        assert each["change"] == (pytest.approx(counts[0] / counts[1] - 1) if counts[1] else None)


def test_an_hour_that_has_not_begun_is_not_compared() -> None:
    whole_hours = [each for each in ROLLUPS if each.complete]

    for name, grain in (("24h", HOUR), ("7d", DAY)):
        found = period(whole_hours, preset(name, NOW))
        assert found.data_through == NOW.replace(minute=0)
        assert found.compared is not None
        assert found.compared[1] == (NOW.replace(minute=0) if grain == HOUR else START + 20 * DAY)
        assert series(found)[-1]["complete"] is False


def test_what_is_not_kept_any_more_is_not_compared() -> None:
    found = asked("30d")
    answer = summary(found)

    assert (answer["previous"], answer["changes"], answer["compared"], answer["new_clients"]) == (None,) * 4
    assert {each["change"] for each in routes(found)} == {None}


@pytest.mark.parametrize("name", PRESETS)
def test_a_series_adds_up_and_has_its_empty_parts(name: str) -> None:
    found = asked(name)

    answer = series(found)

    assert sum(each["requests"] for each in answer) == summary(found)["total"]["requests"]
    assert len(answer) == {"24h": 24, "7d": 28, "30d": 30, "90d": 90}[name]
    for each, following in pairwise(answer):
        assert each["end"] == following["start"]
    for each in answer:
        start, end = (datetime.fromisoformat(each[name]) for name in ("start", "end"))
        assert each["requests"] == len(rows_between(start, end))
        assert each["complete"] == (end <= NOW)
        if not each["requests"]:
            assert (each["availability"], each["p95_ms"]) == (None, None)


@pytest.mark.parametrize("name", PRESETS)
def test_rows_add_up_and_one_row_is_its_page(name: str) -> None:
    found = asked(name)
    total = summary(found)["total"]

    for rows in (routes(found), clients(found)):
        assert sum(each["requests"] for each in rows) == total["requests"]
        assert [each["requests"] for each in rows] == sorted(
            (each["requests"] for each in rows), reverse=True
        )
    first = routes(found)[1]
    one = route(found, first["method"], first["route"])
    assert one["total"] == {key: first[key] for key in one["total"]}
    assert sum(each["requests"] for each in one["series"]) == first["requests"]
    assert sum(each["requests"] for each in one["clients"]) + one["other_clients"] == first["requests"]
    assert sum(one["statuses"].values()) == first["requests"]
    busiest = clients(found)[0]
    other = client(found, busiest["client"])
    assert (
        other["total"]["requests"] == busiest["requests"] == sum(each["requests"] for each in other["series"])
    )
    assert sum(each["requests"] for each in other["routes"]) + other["other_routes"] == busiest["requests"]


def test_the_seeds_form_counts_each_day_by_route_and_method() -> None:
    answer = usage_by_date(ROLLUPS, 7, NOW)

    assert answer["period_days"] == 7
    assert list(answer["usage_by_date"]) == [f"2026-11-{day}" for day in range(21, 14, -1)]
    for date, counts in answer["usage_by_date"].items():
        start = datetime.fromisoformat(f"{date}T00:00:00+00:00")
        assert counts == Counter(f"{each[ROUTE]}:{each[METHOD]}" for each in rows_between(start, start + DAY))


def test_filters_narrow_and_unknown_names_have_no_requests() -> None:
    found = asked("7d")
    posts = summary(found, Filter(method="POST"))["total"]["requests"]

    assert posts == sum(
        1 for each in rows_between(found.range.start, found.range.end) if each[METHOD] == "POST"
    )
    assert route(found, "GET", "/no-such")["total"]["requests"] == 0
    assert client(found, "nobody")["routes"] == []
    with pytest.raises(ValueError, match="ask for one of the two"):
        summary(found, Filter(route="/pets", client="acme"))


def test_other_routes_are_a_row_that_is_last() -> None:
    cut = [
        RollUp(
            each.start, each.end, TYPE, each.data_through, bounded(each.usage, Limits(routes=3, clients=2))
        )
        for each in ROLLUPS
    ]
    found = period(cut, preset("7d", NOW))
    total = summary(found)["total"]["requests"]

    for rows in (routes(found), clients(found)):
        assert rows[-1]["other"] > 0
        assert sum(each["requests"] for each in rows) == total
        assert ordered(rows, sort="p95_ms")[-1] == rows[-1]
        assert list(csv.reader(io.StringIO(to_csv(rows))))[-1][0] == f"({rows[-1]['other']} others)"


@pytest.mark.parametrize("sort", SORTS)
def test_rows_are_sorted_with_unknown_values_last(sort: str) -> None:
    rows = ordered(routes(asked("7d")), sort=sort)

    values = [each[sort] for each in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[: len(known)] == known


def test_rows_are_searched_and_limited() -> None:
    rows = routes(asked("7d"))

    assert [each["route"] for each in ordered(rows, search="RESOURCE-1/")] == ["/v1/resource-1/{id}"]
    assert len(ordered(rows, limit=2)) == 2
    with pytest.raises(ValueError, match="cannot sort by 'name': give one of requests"):
        ordered(rows, sort="name")


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_of_csv_is_a_formula(name: str) -> None:
    found = period([rolled([row(START, route=name, client=name)], START)], Range(START, START + DAY, HOUR))

    for rows in (routes(found), clients(found)):
        text = to_csv(rows)
        assert f"'{name}" in next(iter(list(csv.reader(io.StringIO(text, newline="")))[1:]))


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 60))
def test_another_revision_of_any_part_is_another_revision_of_the_answer(day: int, minutes: int) -> None:
    range_ = Range(START, START + 18 * DAY, DAY)
    first = period(ROLLUPS, range_)
    number = day % 18
    changed = list(ROLLUPS)
    changed[number] = RollUp(
        changed[number].start,
        changed[number].end,
        TYPE,
        changed[number].end - timedelta(minutes=minutes),
        changed[number].usage,
    )

    assert period(changed, range_).revision != first.revision == period(ROLLUPS, range_).revision


def test_losses_are_added_and_unknown_losses_stay_unknown() -> None:
    known = [
        RollUp(START, START + DAY, TYPE, START + DAY, rolled([], START).usage, 1, Completeness(2, 3, 1)),
        RollUp(
            START + DAY,
            START + 2 * DAY,
            TYPE,
            START + 2 * DAY,
            rolled([], START).usage,
            1,
            Completeness(1, 0, 0),
        ),
    ]
    range_ = Range(START, START + 2 * DAY, DAY)
    assert summary(period(known, range_))["completeness"] == {"lost": 3, "quarantined": 3, "replayed": 1}

    unknown = [
        known[0],
        RollUp(known[1].start, known[1].end, TYPE, known[1].end, known[1].usage, 1, Completeness(None)),
    ]
    assert summary(period(unknown, range_))["completeness"]["lost"] is None


def test_no_traffic_is_no_statement() -> None:
    answer = summary(period([], preset("24h", NOW)))

    assert answer["total"]["requests"] == 0
    assert {answer["total"][name] for name in ("availability", "failure_rate", "p50_ms", "mean_ms")} == {None}
    assert (answer["base"], answer["clients"]) == (None, 0)
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    ("start", "end", "step", "problem"),
    [
        (START, START, HOUR, "has no part"),
        (START, START - DAY, HOUR, "has no part"),
        (START, START + DAY, timedelta(minutes=5), "has no part"),
        (START + timedelta(minutes=1), START + DAY, HOUR, "is not a whole hour"),
    ],
)
def test_a_range_without_whole_parts_is_refused(
    start: datetime, end: datetime, step: timedelta, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Range(start, end, step)


def test_a_range_that_would_divide_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="ask for whole days"):
        period(ROLLUPS, Range(START + HOUR, START + DAY, HOUR))


def test_the_names_that_programs_are_told_are_those_of_the_figures() -> None:
    asked = period([rolled([row(START)], START)], Range(START, START + DAY, DAY))

    assert sorted(summary(asked)["total"]) == sorted((*COUNTS, *MEASURES))
    assert tuple(PRESETS) == RANGES
    assert set(SORTS) <= {*routes(asked)[0]} & {*clients(asked)[0]}
