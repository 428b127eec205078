"""The days that an event asks a function for: by hand, or the day before the schedule's. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

# An event with one of these keys was written by hand.
BY_HAND = {"day", "from", "to"}


def days_of(event: dict[str, Any], now: datetime) -> list[date]:
    """Return the days that an event asks for: one or a range by hand, else the day before its time.

    Args:
        event: `{"day": ...}`, `{"from": ..., "to": ...}` (dates, both inclusive), or a schedule's event.
        now: The time; also the event's, if it has none.

    Raises:
        ValueError: If a date is not one or in the future, or the range ends before it begins.
    """
    if BY_HAND & event.keys():
        names = ("day", "day") if "day" in event else ("from", "to")
        first, last = (_date(name, event.get(name)) for name in names)
        if last < first:
            raise ValueError(f"the last day, {last}, is before the first, {first}")
        if last > (today := now.astimezone(UTC).date()):
            raise ValueError(f"{names[1]} is {last}, which is after today, {today} in UTC")
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]
    time = event.get("time")
    at = datetime.fromisoformat(time) if isinstance(time, str) else now
    return [at.astimezone(UTC).date() - timedelta(days=1)]


def _date(name: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, not a date such as 2026-11-19") from None
