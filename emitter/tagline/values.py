"""How values, names and times are written on a line: any value as JSON, a field's key, a time as text."""

from __future__ import annotations

import json
import sys
from collections import deque
from enum import Enum
from functools import lru_cache
from itertools import count

from .annotations import TYPE_CHECKING, Any, Callable, Optional, Timestamp

if TYPE_CHECKING:
    from .privacy import Privacy

DEFAULT_TAG = "usage_record"
DEFAULT_TYPE = "api_request"
RESERVED = frozenset(["timestamp", "level"])
MAX_DEPTH = 32  # lists and objects that are nested deeper are cut
MAX_CONTAINERS = 100_000  # so are more than this many in one record: objects that refer to each other
MAX_CONVERSIONS = 8  # a model may become a dict of another class, which has to be converted in turn
MAX_REPR = 1_000  # longest text of an object that JSON has no form for, in characters
_MAX_DIGITS = 40  # DynamoDB's numbers have 38; writing out Decimal("1E999999999") would take hours
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 and 9999
# A whole number below this is a number of seconds that someone passed as milliseconds.
_YEAR_2000_MS = 946_684_800_000
_DAY = 86_400
_JSON_TYPES = frozenset([str, int, float, bool, type(None), dict, list])

# ASCII, no space; raises for NaN. Only for plain JSON values: it would also write tuples and numeric keys.
encode = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def repr_of(value: Any, text: Callable[[Any], str] = repr) -> str:
    """Return a value's text, at most 1,000 characters, or the name of its class if it has none."""
    try:
        return str(text(value))[:MAX_REPR]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in a Rust extension is not an Exception
        return f"<{type(value).__name__}>"


def as_dict(fields: Any) -> dict[Any, Any]:
    """Return a copy of fields as a dict. Anything that is not a mapping is kept under the key `fields`."""
    try:
        return dict(fields or ())
    except Exception:
        return {"fields": fields}


def to_json(value: Any, privacy: Optional[Privacy] = None) -> Any:
    """Return a copy of a value that consists of plain JSON values only, with secrets masked by the rules.

    A value that fails when it is converted, or that is inside itself, becomes the name of its class, in `<>`.
    """
    return _Conversion(privacy).convert(value, (), 0)


class _Conversion:
    """One call of `to_json`. `above` has the `id()` of each container around a value, to detect cycles."""

    def __init__(self, privacy: Optional[Privacy]) -> None:
        self._privacy = privacy
        self._containers = count(1)

    def convert(self, value: Any, above: tuple[int, ...], depth: int) -> Any:
        kind, original = type(value), value
        try:
            for _ in range(MAX_CONVERSIONS):
                if kind in _JSON_TYPES:
                    break
                value = _simplify(value)
                kind = type(value)
            if kind is str:
                return self._privacy.text(value) if self._privacy else value
            if kind is dict or kind is list:
                key = id(original)  # what it was converted to is a new object each time
                if key not in above and depth <= MAX_DEPTH and next(self._containers) <= MAX_CONTAINERS:
                    convert = self._object if kind is dict else self._list
                    return convert(value, (*above, key), depth + 1)
            elif kind in _JSON_TYPES:
                return _number(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: S110 - a panic in a Rust extension is not an Exception
            pass
        return f"<{type(original).__name__}>"

    def _object(self, value: dict[Any, Any], above: tuple[int, ...], depth: int) -> dict[str, Any]:
        converted, privacy = {}, self._privacy
        for name, item in list(value.items()):
            key = str.__str__(name) if isinstance(name, str) else repr_of(name, str)
            rule = privacy.rule(name) if privacy else None
            if rule is not drop:
                key = privacy.text(key) if privacy else key
                converted[key] = self.convert(item, above, depth) if rule is None else rule(item)
        return converted

    def _list(self, value: list[Any], above: tuple[int, ...], depth: int) -> list[Any]:
        rule = self._privacy.pair_rule(value) if self._privacy else None
        if rule is not None:
            return [self.convert(value[0], above, depth), rule(value[1])]
        return [self.convert(item, above, depth) for item in value]


def drop(_value: Any) -> None:
    """Stand for the rule that leaves a field out. It is called only for a pair, whose value becomes None."""


def _number(value: Any) -> Any:
    """Return a number, boolean or None as JSON can hold it; it raises for more digits than Python writes."""
    if isinstance(value, float):
        return value if value - value == 0 else None  # infinite, or not a number
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - shorter ones are short enough
        str(value)
    return value


def _simplify(value: Any) -> Any:  # noqa: C901, PLR0912 - a table of types
    """Return a simpler value for one that JSON has no form for.

    Types of other libraries are recognised by their methods, so that nothing is imported for them.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    decimal = sys.modules.get("decimal")
    if decimal and isinstance(value, decimal.Decimal):
        return _decimal(value)
    if not isinstance(value, type):
        if hasattr(value, "isoformat"):
            return str(value.isoformat())
        if hasattr(value, "model_dump"):  # pydantic
            return value.model_dump()
        if hasattr(value, "__dataclass_fields__"):
            return {name: getattr(value, name, None) for name in value.__dataclass_fields__}
        if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy
            return value.tolist()
        if hasattr(value, "keys") and hasattr(value, "__getitem__"):  # headers, rows, environ
            return {name: value[name] for name in value.keys()}  # noqa: SIM118 - not all are iterable
    return repr_of(value, str)


def _decimal(value: Any) -> Any:
    """Return a Decimal, which is what boto3 makes of DynamoDB's numbers, as a number."""
    if value.is_finite() and value.adjusted() < _MAX_DIGITS and value == value.to_integral_value():
        return int(value)
    return float(value)


def field_key(name: str) -> str:
    """Return the key of a user's field on the line: a name of the format's gets `_` appended.

    So does a name that this rule made, which keeps it reversible: `level` is `level_`, `level_` is `level__`.
    """
    return name + "_" if name.startswith("_") or name.rstrip("_") in RESERVED else name


def field_name(key: str) -> str:
    """Return the user's name of a field by its key on the line: the inverse of `field_key`."""
    return key[:-1] if key.endswith("_") and (key.startswith("_") or key.rstrip("_") in RESERVED) else key


def format_timestamp(milliseconds: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 UTC with milliseconds.

    Raises:
        ValueError: If the year is not between 1 and 9999.
    """
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Return seconds since 1970 as text. `time.gmtime` refuses times before 1970 on Windows.

    The date is counted in eras of 400 years that begin on 1 March, so that a leap day ends its year.
    """
    if not _FIRST_MS <= seconds * 1000 <= _LAST_MS:
        raise ValueError(f"{seconds} s after 1970 is not between the years 1 and 9999")
    days, rest = divmod(seconds, _DAY)
    era, day_of_era = divmod(days + 719_468, 146_097)
    year = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153  # from March
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9  # noqa: PLR2004
    year += era * 400 + (month <= 2)  # noqa: PLR2004
    return f"{year:04d}-{month:02d}-{day:02d}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def parse_timestamp(value: Any) -> Optional[int]:
    """Return a datetime, RFC 3339 text or whole number of milliseconds as milliseconds since 1970.

    Text without an offset and datetimes without a zone are taken as UTC.

    Returns:
        The milliseconds, or None if the value is not a time between the years 1 and 9999.
    """
    if isinstance(value, int):
        return int(value) if _FIRST_MS <= value <= _LAST_MS and not isinstance(value, bool) else None
    if not isinstance(value, str) and not hasattr(value, "tzinfo"):
        return None
    from datetime import datetime, timezone  # a handler that writes lines parses no times

    try:
        if isinstance(value, str):
            value = _parse(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        if isinstance(value, datetime):
            zoned = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
            since = zoned - datetime(1970, 1, 1, tzinfo=timezone.utc)
            return (since.days * _DAY + since.seconds) * 1000 + since.microseconds // 1000
    except (ValueError, OverflowError):
        pass
    return None


def event_time(value: Timestamp) -> Optional[int]:
    """Return what a caller gave as a record's time as milliseconds since 1970.

    A float is a number of seconds, as `time.time()` gives it. A whole number is one of milliseconds, and None
    if it is before the year 2000: it would be seconds.
    """
    if isinstance(value, float):
        return round(value * 1000) if _FIRST_MS <= value * 1000 <= _LAST_MS else None
    milliseconds = parse_timestamp(value)
    if isinstance(value, int) and milliseconds is not None and milliseconds < _YEAR_2000_MS:
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
