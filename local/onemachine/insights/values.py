"""What a value of a query is, how two compare, how they sort, and how one is printed. Pure.

A value is text, a number, a boolean, a time, a map or list that jsonParse made, or missing (None).
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

Value = Any

# Results show four digits after the point; whole numbers have none.
_DECIMALS = 4
_NUMBER = re.compile(r"\s*[+-]?(\d{1,300}\.?\d{0,300}|\.\d{1,300})([eE][+-]?\d{1,3})?\s*", re.ASCII)
# Every whole number below it is a double as well.
_LARGEST = 10**300
_CHUNK = re.compile(r"[0-9]+|[^\W\d_]+|[\W\d_]", re.DOTALL)
_DAY_MS = 86_400_000


class Timestamp(int):
    """A time in milliseconds since 1970, which is printed as a date; arithmetic makes it a number."""

    __slots__ = ()


class Decimal(float):
    """A number of a log event, which is printed with all its digits until something is computed of it."""

    __slots__ = ()


def is_structure(value: Value) -> bool:
    """Tell whether a value is a map or a list, which most functions take for missing."""
    return isinstance(value, (dict, list))


def number(value: Value) -> int | float | None:
    """Return a value as a number, or None if it is not a number; text that only holds a number is one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return None


def computed(value: complex | None) -> int | float | None:
    """Return what arithmetic made: whole numbers without a point, and None for what is not a number."""
    if value is None or isinstance(value, complex) or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else value


def text(value: Value) -> str | None:
    """Return a value as text, for functions of strings; maps and lists are missing to them.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
    """
    return None if value is None or is_structure(value) else printed(value)


def printed(value: Value) -> str:
    """Return a value that is not missing as GetQueryResults has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Timestamp):
        return _date(value)
    if isinstance(value, Decimal):
        return repr(float(value)).removesuffix(".0")
    if isinstance(value, float):
        shown = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
        return "0" if shown == "-0" else shown
    if is_structure(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=printed)
    return str(value)


def _date(milliseconds: int) -> str:
    seconds, rest = divmod(int(milliseconds), 1000)
    try:
        day = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return str(int(milliseconds))  # no calendar has it
    return f"{day:%Y-%m-%d %H:%M:%S}.{rest:03d}"


def equal(left: Value, right: Value) -> bool:
    """Tell whether two values are equal: as numbers where one is a number, else as texts.

    A missing value, a map and a list are equal to nothing.
    """
    if left is None or right is None or is_structure(left) or is_structure(right):
        return False
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    one, other = number(left), number(right)
    return one is not None and one == other


def less(left: Value, right: Value) -> bool:
    """Tell whether a value is less than another: as numbers if both are, as texts if neither is."""
    if left is None or right is None or is_structure(left) or is_structure(right):
        return False
    one, other = number(left), number(right)
    if one is not None and other is not None:
        return one < other
    return one is None and other is None and str(left) < str(right)


def order(value: Value) -> tuple[Any, ...]:
    """Return what values are sorted by: missing ones, then texts in natural order, then numbers.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Sort.html
    """
    if value is None:
        return (0,)
    size = number(value)
    if size is not None:
        return (2, size, printed(value))
    # A run of digits is compared with other characters as its first digit would be, and with another run by
    # length and then by value.
    return (
        1,
        tuple(
            ("0", len(chunk), chunk) if chunk.isdecimal() and chunk.isascii() else (chunk, 0, "")
            for chunk in _CHUNK.findall(printed(value))
        ),
    )


def floor_time(milliseconds: int, size: int, unit: str) -> Timestamp | None:
    """Return the beginning of the period that a time is in.

    Args:
        milliseconds: The time, since 1970.
        size: How many units the period has.
        unit: ms, s, m, h, d, mo, q or y; months, quarters and years are the calendar's, in UTC.
    """
    if unit in _UNIT_MS:
        width = size * _UNIT_MS[unit]
        return Timestamp(milliseconds // width * width)
    try:
        day = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    month = {"mo": day.month, "q": (day.month - 1) // 3 * 3 + 1, "y": 1}[unit]
    return Timestamp(int(datetime(day.year, month, 1, tzinfo=UTC).timestamp()) * 1000)


def ceil_time(milliseconds: int, size: int, unit: str) -> Timestamp | None:
    """Return the first beginning of a period that is not before a time; arguments as for floor_time."""
    floor = floor_time(milliseconds, size, unit)
    if floor is None or floor == milliseconds:
        return floor
    if unit in _UNIT_MS:
        return Timestamp(floor + size * _UNIT_MS[unit])
    longest_days = {"mo": 31, "q": 92, "y": 366}[unit]
    return floor_time(floor + longest_days * _DAY_MS, size, unit)


_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": _DAY_MS}
