"""The line's time format, RFC 3339 UTC with milliseconds, in both directions."""

from __future__ import annotations

from functools import lru_cache

from .annotations import Any, Optional, Timestamp

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 and 9999
# A whole number below this is a number of seconds that someone passed as milliseconds.
YEAR_2000_MS = 946_684_800_000
DAY = 86_400


def format_timestamp(milliseconds: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 UTC with milliseconds.

    Raises:
        ValueError: If the year is not between 1 and 9999.
    """
    if not FIRST_MS <= milliseconds <= LAST_MS:
        raise ValueError(f"{milliseconds} ms is not between the years 1 and 9999")
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Return seconds since 1970 as text. `time.gmtime` refuses times before 1970 on Windows.

    The date is counted in eras of 400 years that begin on 1 March, so that a leap day ends its year.
    """
    days, rest = divmod(seconds, DAY)
    era, day_of_era = divmod(days + 719_468, 146_097)
    year = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153  # from March
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    return f"{year:04d}-{month:02d}-{day:02d}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def parse_timestamp(value: Any) -> Optional[int]:
    """Return a datetime, RFC 3339 text or whole number of milliseconds as milliseconds since 1970.

    Text without an offset and datetimes without a zone are taken as UTC.

    Returns:
        The milliseconds, or None if the value is no time between the years 1 and 9999.
    """
    if isinstance(value, int):
        return int(value) if FIRST_MS <= value <= LAST_MS and not isinstance(value, bool) else None
    if not isinstance(value, str) and not hasattr(value, "tzinfo"):
        return None
    from datetime import datetime, timezone  # a handler that writes lines parses no times

    try:
        if isinstance(value, str):
            value = _parse(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        if isinstance(value, datetime):
            zoned = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
            since = zoned - datetime(1970, 1, 1, tzinfo=timezone.utc)
            return (since.days * DAY + since.seconds) * 1000 + since.microseconds // 1000
    except (ValueError, OverflowError):
        pass
    return None


def event_time(value: Timestamp) -> Optional[int]:
    """Return what a caller gave as a record's time as milliseconds since 1970.

    A float is a number of seconds, as `time.time()` gives it. A whole number is one of milliseconds, and None
    if it is before the year 2000: it would be seconds.
    """
    if isinstance(value, float):
        return parse_timestamp(round(value * 1000)) if abs(value) <= LAST_MS else None
    milliseconds = parse_timestamp(value)
    if isinstance(value, int) and milliseconds is not None and milliseconds < YEAR_2000_MS:
        return None
    return milliseconds


def _parse(text: str) -> Any:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # Before Python 3.11 it takes fractions of three or six digits only, and offsets only with a colon.
        import re

        found = re.fullmatch(r"(.{10}[T ]\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:([+-]\d\d):?(\d\d))?", text)
        if not found:
            raise
        fraction = f".{found[2][:6]:0<6}" if found[2] else ""
        return datetime.fromisoformat(found[1] + fraction + (f"{found[3]}:{found[4]}" if found[3] else ""))
