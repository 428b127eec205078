"""Rolls up a day: its rows in the store, with one question for each hour that has rows, or its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

from exporter.lake.days import Day
from exporter.lake.manifest import Manifest
from exporter.store import SLICE_ROWS, Span, Store, Tally
from exporter.usage.counting import usage_by_hour, usage_of_rows
from exporter.usage.groups import COLUMNS
from exporter.usage.rollup import RollUp, Usage

_HOUR = timedelta(hours=1)
_HOURS = 24
_MINUTES = 60


def roll_up_day(
    store: Store,
    day: date,
    type_: str,
    data_through: datetime,
    known: Mapping[datetime, RollUp] | None = None,
) -> Iterator[RollUp]:
    """Yield a roll-up for each hour of a day that has begun.

    Args:
        store: Has the rows.
        day: The day in UTC.
        type_: The `_type` of the records that count.
        data_through: Until when all rows are in the store, in UTC.
        known: Roll-ups by their start. A complete one is kept if the store has as many rows as it had then.

    Raises:
        StoreError: If the store does not answer.
    """
    tally = store.tally(day)
    columns = tuple(column for column in store.columns(day) if column.name in COLUMNS) if tally else ()
    names = [column.name for column in columns]
    counts: Counter[int] = Counter()
    for minute, rows in tally.items():
        counts[minute // _MINUTES] += rows
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for hour in range(_HOURS):
        start, end = midnight + hour * _HOUR, midnight + (hour + 1) * _HOUR
        if start >= data_through:
            return
        source = f"{counts[hour]} rows"
        before = (known or {}).get(start)
        if before is not None and before.complete and (before.source, before.type) == (source, type_):
            yield before
            continue
        spans = _spans(start, tally) if counts[hour] else ()
        found = (row for span in spans for row in store.rows(span, columns).rows)
        usage = usage_of_rows(names, found, type_)
        yield RollUp(start, end, type_, min(end, data_through), usage, source=source)


def roll_up_files(
    day: Day, manifest: Manifest, type_: str, source: str, data_through: datetime
) -> Iterator[RollUp]:
    """Yield a roll-up for each hour of a day that the lake has.

    Args:
        day: The day.
        manifest: What the lake has of it.
        type_: The `_type` of the records that count.
        source: The manifest's ETag.
        data_through: Until when the consumer has read all records, in UTC.

    Raises:
        ValueError: If a file is damaged.
    """
    names = [column.name for column in manifest.columns]
    rows = (row for batch in day.rows(manifest) for row in batch.rows)
    by_hour = usage_by_hour(names, rows, type_)
    midnight = datetime(day.date.year, day.date.month, day.date.day, tzinfo=UTC)
    for number in range(_HOURS):
        start, end = midnight + number * _HOUR, midnight + (number + 1) * _HOUR
        usage = by_hour.get(f"{start:%Y-%m-%d %H}", Usage())
        yield RollUp(start, end, type_, min(end, data_through), usage, source=source)


def _spans(start: datetime, tally: Tally) -> Iterator[Span]:
    """Yield the spans of an hour, each of at most `SLICE_ROWS` rows unless a single minute has more."""
    first, rows = start, 0
    for number in range(_MINUTES):
        minute = start + timedelta(minutes=number)
        found = tally.get(start.hour * _MINUTES + number, 0)
        if rows and rows + found > SLICE_ROWS:
            yield Span(_text(first), _text(minute))
            first, rows = minute, 0
        rows += found
    yield Span(_text(first), _text(start + _HOUR))


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}.000000000"
