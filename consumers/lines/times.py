"""The times that lines carry: RFC 3339, seconds to nanoseconds since 1970, and an access log's notation."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from tagline import parse_timestamp

_SECOND_LENGTH = len("2026-11-20T10:00:00")
# What the emitter writes behind the second: to find it here is twice as fast as to read it.
_FRACTIONS = {f".{fraction:03}Z": fraction for fraction in range(1_000)}

# The size of a number tells whether it counts seconds, milliseconds, microseconds or nanoseconds.
# Milliseconds before 1973-03-03 are read as seconds.
_UNITS = ((10**11, 1_000.0), (10**14, 1.0), (10**17, 1e-3), (10**20, 1e-6))
_NUMBER = re.compile(r"\d{10}(?:\.\d{1,9})?|\d{13}|\d{16}|\d{19}")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# https://httpd.apache.org/docs/current/mod/mod_log_config.html#formats
_ACCESS_LOG = re.compile(
    rf"\[?(\d\d)/({'|'.join(_MONTHS)})/(\d{{4}}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\]?"
)


def milliseconds(value: Any) -> int | None:
    """Return a line's time in milliseconds since 1970, or None if it cannot be read.

    Args:
        value: What the line has as its time: RFC 3339 text; a whole or fractional number, also as text, of
            seconds, milliseconds, microseconds or nanoseconds since 1970; or `20/Nov/2026:10:00:00 +0000`.
    """
    if value.__class__ is str and (fraction := _FRACTIONS.get(value[_SECOND_LENGTH:])) is not None:
        second = _second(value[:_SECOND_LENGTH])
        if second is not None:
            return second + fraction
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_number(value)
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return _from_number(float(value) if "." in value else int(value))
        if found := _ACCESS_LOG.fullmatch(value):
            return _from_access_log(*found.groups())
    return parse_timestamp(value)


@lru_cache(maxsize=1024)
def _second(text: str) -> int | None:
    """Return the milliseconds of a time without its fraction; the lines of a batch share a few of them."""
    return parse_timestamp(text + "Z")


def _from_number(number: float) -> int | None:
    for limit, factor in _UNITS:
        if -limit < number < limit:  # not so for NaN
            whole = number * int(factor) if factor >= 1 else number // round(1 / factor)
            return parse_timestamp(round(whole))
    return None


def _from_access_log(*parts: str) -> int | None:
    day, month, year, hour, minute, second, sign, hours, minutes = parts
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        zone = timezone(offset)
        named = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=zone
        )
        return parse_timestamp(named.astimezone(UTC))
    except (ValueError, OverflowError):
        return None
