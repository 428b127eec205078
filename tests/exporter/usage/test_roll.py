"""Each hour with rows is asked for once, and the roll-ups count every row of the type."""

from __future__ import annotations

from datetime import date, timedelta

from exporter.usage.questions import DAY, HOUR
from exporter.usage.roll import roll_up_day
from exporter.usage.rollup import merge
from tests.exporter.usage.usage_lake import store_of
from tests.exporter.usage.usage_rows import START, TYPE, rolled, row, traffic


def test_a_day_is_its_rows_and_an_hour_is_asked_for_once() -> None:
    (rows,) = traffic(1, routes=9, clients=5, requests=150)
    rows = [*rows, row(START, type_="meter"), row(START + DAY), row(START - HOUR)]
    store = store_of(rows)

    hours = list(roll_up_day(store, date(2026, 11, 1), TYPE, START + 2 * DAY))

    assert [rollup.start for rollup in hours] == [START + number * HOUR for number in range(24)]
    assert merge(hours).usage == rolled(rows[:-2], START).usage
    assert merge(hours).complete
    assert len(store.asked) == len({str(each[0])[:13] for each in rows[:-2]})
    assert all(span.start[:13] == f"{START:%Y-%m-%d} {span.start[11:13]}" for span in store.asked)


def test_a_day_that_is_not_over_has_the_hours_that_have_begun() -> None:
    through = START + 2 * HOUR + timedelta(minutes=10)

    hours = list(roll_up_day(store_of([row(START)]), date(2026, 11, 1), TYPE, through))

    assert [rollup.complete for rollup in hours] == [True, True, False]
    assert hours[-1].data_through == through
    assert list(roll_up_day(store_of([row(START)]), date(2026, 11, 2), TYPE, through)) == []


def test_a_day_without_rows_is_whole_and_not_asked_for() -> None:
    store = store_of([row(START + DAY)])

    hours = list(roll_up_day(store, date(2026, 11, 1), TYPE, START + DAY))

    assert len(hours) == 24
    assert merge(hours).usage.total.requests == 0
    assert store.asked == []
