"""Rolls up what the store has, with one question for each hour that has rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from exporter.store import Span, Store
from exporter.usage.groups import COLUMNS, group_rows
from exporter.usage.rollup import RollUp, Usage, usage_of

_HOUR = timedelta(hours=1)


def roll_up_day(store: Store, day: date, type_: str, data_through: datetime) -> Iterator[RollUp]:
    """Yield a roll-up for each hour of a day that has begun.

    Args:
        store: Has the rows.
        day: The day in UTC.
        type_: The `_type` of the records that count.
        data_through: Until when all rows are in the store, in UTC.

    Raises:
        StoreError: If the store does not answer.
    """
    columns = tuple(column for column in store.columns(day) if column.name in COLUMNS)
    names = [column.name for column in columns]
    with_rows = {minute // 60 for minute in store.tally(day)} if columns else set()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for hour in range(24):
        start, end = midnight + hour * _HOUR, midnight + (hour + 1) * _HOUR
        if start >= data_through:
            return
        usage = Usage()
        if hour in with_rows:
            answer = store.rows(Span(_text(start), _text(end)), columns)
            usage = usage_of(group_rows(names, answer.rows, type_))
        yield RollUp(start, end, type_, min(end, data_through), usage)


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}.000000000"
