"""Options that several commands have, and the days and times in their texts."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from cli.quarantine import ArrivalDays
    from cli.target import Target
    from exporter.store import Days

Stack = Annotated[
    str | None,
    typer.Option(
        envvar="TAGLINE_STACK",
        help="Use this stack on AWS, with the environment's credentials and region. "
        "Default: the one that runs here.",
    ),
]


class Reason(StrEnum):
    """Why lines are in quarantine: docs/reference/quarantine.md."""

    UNDECODABLE = "undecodable"
    PREFIX = "prefix"
    UNPARSEABLE = "unparseable"
    INVALID = "invalid"
    LATE = "late"
    FUTURE = "future"
    METER_UNDECODABLE = "meter_undecodable"
    METER_PREFIX = "meter_prefix"
    METER_UNPARSEABLE = "meter_unparseable"
    METER_INVALID = "meter_invalid"
    METER_REFUSED = "meter_refused"


Reasons = Annotated[
    list[Reason] | None, typer.Option("--reason", help="Only this reason; may be given again. Default: all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")]


# Ten years: as long as CloudWatch Logs keeps lines at most, and years are a mistake more often than a wish.
MAX_DAYS = 3_660
MAX_WAIT_S = 86_400.0  # a day
# No record is older or younger: stores count nanoseconds from 1970 in 64 bits.
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2261, 12, 31)


def finite(value: float | None) -> float | None:
    """Return an option's number; `inf` and `nan`, which Python reads as numbers, are refused."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def day_option(name: str, description: str) -> Any:
    """Return an option that takes a day, in UTC."""
    return typer.Option(name, formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help=description)


OneDay = Annotated[datetime | None, day_option("--day", "The day (UTC). Default: yesterday.")]
FirstDay = Annotated[
    datetime | None, day_option("--from", "The first day (UTC). Default: the day of --to, or yesterday.")
]
LastDay = Annotated[
    datetime | None, day_option("--to", "The last day (UTC), inclusive. Default: the day of --from.")
]


def days_between(
    target: Target, first: datetime | None, last: datetime | None, *, one_by_one: bool = False
) -> Days:
    """Return the days from the first to the last; yesterday if neither is given.

    Args:
        target: The pipeline.
        first: The first day.
        last: The last day.
        one_by_one: Whether the store is asked about each day; then there is a limit of days.

    Raises:
        CommandError: If the last is before the first; for days that are asked one by one, also if there are
            more than `MAX_DAYS`, or if one is not from 1970 to 2261.
    """
    from exporter.store import Days

    yesterday = target.now() - timedelta(days=1)
    try:
        days = Days((first or last or yesterday).date(), (last or first or yesterday).date())
    except ValueError as error:
        raise CommandError(str(error), "give --from and --to in this order") from error
    for day in (days.first, days.last) if one_by_one else ():
        if not _FIRST_DAY <= day <= _LAST_DAY:
            raise CommandError(f"no record can be of {day}", f"give a day from {_FIRST_DAY} to {_LAST_DAY}")
    if one_by_one and len(days) > MAX_DAYS:
        raise CommandError(
            f"from {days.first} to {days.last} are {len(days):,} days", f"give at most {MAX_DAYS:,}"
        )
    return days


def arrival_days(first: datetime | None, last: datetime | None) -> ArrivalDays:
    """Return the days of arrival from the first to the last; None is without end."""
    from cli.quarantine import ArrivalDays

    if first is not None and last is not None and last < first:
        raise CommandError(
            f"{last:%Y-%m-%d} is before {first:%Y-%m-%d}", "give --from and --to in this order"
        )
    return ArrivalDays(first and first.date(), last and last.date())


def parse_day(option: str, text: str | None) -> datetime | None:
    """Return the day in an option's text."""
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise CommandError(
            f"{option} {text} is not a day", "objects are kept by the day of their arrival: give YYYY-MM-DD"
        ) from error


def parse_time(option: str, text: str, *, end: bool = False) -> int:
    """Return the time in an option's text, in milliseconds since 1970; of a day its beginning or its end."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{option} {text} is not a time", "give YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, in UTC"
        ) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    whole_day = timedelta(days=1) if end and _is_day(text) else timedelta()
    return int((when + whole_day).timestamp() * 1000)


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def format_time(when_ms: int) -> str:
    """Return a time in milliseconds since 1970 for a person."""
    return datetime.fromtimestamp(when_ms / 1000, UTC).isoformat(timespec="milliseconds")
