"""Numbers and times as the page writes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

UNKNOWN, SAME = "\N{EN DASH}", "± 0"
_DAY = timedelta(days=1)
_TEN, _HUNDRED, _THOUSAND = 10, 100, 1_000
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: float) -> str:
    """Return a count: `12,345`."""
    return f"{number:,.0f}"


def compact(number: int) -> str:
    """Return a count for a narrow cell: `12k`; empty for 0."""
    if not number:
        return ""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}" if number < _TEN * limit else f"{number // limit}{unit}"
    return str(number)


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share: `3.20 %`. All and nothing have no digits, so nothing else looks like them."""
    if share is None:
        return UNKNOWN
    if share in {0, 1}:
        return f"{share * 100:.0f} %"
    least = 10.0**-digits
    if share * 100 < least:
        return f"<{least:.{digits}f} %"
    return f"{min(share * 100, 100 - least):.{digits}f} %"


def short_percent(share: float) -> str:
    """Return a share for a chart's side: `2.5 %`."""
    return f"{share * 100:.3g} %"


def milliseconds(duration: float | None) -> str:
    """Return a duration in milliseconds with three digits at most: `8.3 ms`, `121 ms`, `1.25 s`."""
    if duration is None:
        return UNKNOWN
    rounded = float(f"{duration:.3g}")
    if rounded >= 60 * _THOUSAND:
        return f"{duration / 60_000:.1f} min"
    if rounded >= _THOUSAND:
        return f"{rounded / _THOUSAND:.3g} s"
    return f"{rounded:.3g} ms"


def size(number: float) -> str:
    """Return bytes with three digits and a unit: `203 kB`."""
    value, unit = float(f"{number:.3g}"), 0
    while value >= _THOUSAND and unit < len(_SIZES) - 1:
        value, unit = value / _THOUSAND, unit + 1
    return f"{value:,.0f} {_SIZES[unit]}" if value >= _HUNDRED else f"{value:.3g} {_SIZES[unit]}"


def change(relative: float | None) -> str:
    """Return a relative change: `▲ 4 %`; empty if it is not known."""
    return "" if relative is None else _arrow(relative * 100, 0, "%")


def points(difference: float | None) -> str:
    """Return the change of a share in percentage points: `▲ 0.20 pt`; empty if it is not known."""
    return "" if difference is None else _arrow(difference * 100, 2, "pt")


def row_change(row: Mapping[str, Any]) -> str:
    """Return how a row's requests changed: `new` if there were none before."""
    if row["previous_requests"] == 0 and row["requests"]:
        return "new"
    return change(row["change"])


def _arrow(number: float, digits: int, unit: str) -> str:
    text = f"{abs(number):,.0f}" if abs(number) >= _HUNDRED else f"{abs(number):.{digits}f}"
    if not float(text.replace(",", "")):
        return SAME
    return f"{'▲' if number > 0 else '▼'} {text} {unit}"


def meaning(status: int) -> str:
    """Return HTTP's name of a status: `Not Found`."""
    return HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""


def date(time: datetime) -> str:
    """Return a date: `28 Nov 2026`."""
    return f"{time.day} {time:%b %Y}"


def time(moment: datetime) -> str:
    """Return a time: `28 Nov 2026, 10:05`."""
    return f"{date(moment)}, {moment:%H:%M}"


def span(start: datetime, end: datetime) -> str:
    """Return a time from its beginning to its end: `22 to 28 Nov 2026`, or with hours if it has any."""
    midnight = {moment.time() for moment in (start, end)} == {datetime.min.time()}
    if not midnight:
        return f"{time(start)} to {time(end)}"
    last = end - timedelta(microseconds=1)
    if start.date() == last.date():
        return date(start)
    first = (
        f"{start.day}" if (start.year, start.month) == (last.year, last.month) else f"{start.day} {start:%b}"
    )
    return f"{first if start.year == last.year else date(start)} to {date(last)}"


def part(start: datetime, step: timedelta) -> str:
    """Return the beginning of a part of a series: `28 Nov, 06:00`."""
    day = f"{start.day} {start:%b}"
    return day if step >= _DAY else f"{day}, {start:%H:%M}"


def short(start: datetime, step: timedelta) -> str:
    """Return the beginning of a part of a series, for below a chart: `06:00` or `28 Nov`."""
    return f"{start.day} {start:%b}" if step > timedelta(hours=1) else f"{start:%H:%M}"


def duration(length: timedelta) -> str:
    """Return a time span in its largest unit: `7 minutes`."""
    seconds = max(0, int(length.total_seconds()))
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= unit:
            number = seconds // unit
            return f"{number:,} {name}{'s' if number > 1 else ''}"
    return "less than a minute"
