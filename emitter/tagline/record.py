"""A record and its line, in both directions. docs/reference/line.md describes the format."""

from __future__ import annotations

import json
from functools import lru_cache

from .annotations import Any, Fields, Mapping, Optional, Timestamp
from .values import encode, repr_of, to_json

DEFAULT_TAG = "usage_record"
DEFAULT_TYPE = "api_request"
_RESERVED = frozenset(["timestamp", "level"])
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 and 9999
# A whole number below this is a number of seconds that someone passed as milliseconds.
_YEAR_2000_MS = 946_684_800_000
_DAY = 86_400


class UnreadableLineError(ValueError):
    """A line that should be a record and cannot be parsed as one; the message says why."""


class Record:
    """The content of one line. Immutable.

    It is not a dataclass: importing `dataclasses` takes longer than importing the emitter.

    Args:
        id: Unique per record, and the same for every copy of it.
        timestamp: When the request reached the handler, in milliseconds since 1970-01-01T00:00:00Z.
        fields: The user's own fields by name.
        type: Kind of record; it becomes the store's measure name.
        tag: The token that the subscription filter looks for.
        level: What the platform's level filter needs to let the line through.
        src: The emitter that wrote the line, unique per execution environment.
        seq: The line's number among those with its tag in `src`, from 0: a gap is a lost line.
        trunc: Names of the fields that were shortened to keep the line in its budget.
    """

    id: str
    timestamp: int
    fields: Mapping[str, Any]
    type: str
    tag: str
    level: str
    src: Optional[str]
    seq: Optional[int]
    trunc: tuple[str, ...]

    def __init__(  # noqa: PLR0917 - in the order of the line
        self,
        id: str,
        timestamp: int,
        fields: Optional[Fields] = None,
        type: str = DEFAULT_TYPE,
        tag: str = DEFAULT_TAG,
        level: str = "INFO",
        src: Optional[str] = None,
        seq: Optional[int] = None,
        trunc: tuple[str, ...] = (),
    ) -> None:
        fields = {} if fields is None else fields
        self.__dict__.update(id=id, timestamp=timestamp, fields=fields, type=type, tag=tag, level=level)
        self.__dict__.update(src=src, seq=seq, trunc=trunc)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Record is immutable; record.replace({name}=...) returns a changed copy")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Record) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its fields are a dict

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, tuple(vars(self).values())

    def replace(self, **changes: Any) -> Record:
        """Return a copy with other values for some of the attributes."""
        return Record(**{**vars(self), **changes})

    def to_line(self) -> str:
        """Return the record as one line of ASCII JSON, without the newline.

        Values that JSON has no form for become text; NaN and infinities become null.
        """
        return encode(to_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return the line's object: the tag first, the user's fields last."""
        line: dict[str, Any] = {"_tag": self.tag, "timestamp": format_timestamp(self.timestamp)}
        line.update(level=self.level, _type=self.type, _id=self.id)
        if self.src is not None:
            line["_src"] = self.src
        if self.seq is not None:
            line["_seq"] = self.seq
        if self.trunc:
            line["_trunc"] = [str(name) for name in self.trunc]
        line.update((field_key(name), value) for name, value in self.fields.items())
        return line

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Parse a line that `to_line` or an emitter wrote.

        Raises:
            UnreadableLineError: If the line is not one JSON object, or not a record.
        """
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableLineError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UnreadableLineError(f"a JSON {value.__class__.__name__}, not an object")
        return cls.from_json(value)

    @classmethod
    def from_json(
        cls, line: Fields, *, default_id: str = "", default_timestamp: Optional[int] = None
    ) -> Record:
        """Parse a record from a line's JSON object. Keys of the format that are not known are left out.

        Args:
            line: The object on the line.
            default_id: The id of a line without `_id` (lines of other loggers have none).
            default_timestamp: The time of a line without a readable `timestamp`, in milliseconds since 1970.

        Raises:
            UnreadableLineError: If the tag, the id or the time is missing or of the wrong type.
        """
        named = {"_tag": line.get("_tag"), "_id": line.get("_id", default_id)}
        named["_type"] = line.get("_type", DEFAULT_TYPE)
        for key, value in named.items():
            if not isinstance(value, str) or not value:
                raise UnreadableLineError(f"{key} is {repr_of(value)}, not a text of at least one character")
        timestamp = parse_timestamp(line.get("timestamp"))
        timestamp = default_timestamp if timestamp is None else timestamp
        if timestamp is None:
            raise UnreadableLineError(f"timestamp is {repr_of(line.get('timestamp'))}, not RFC 3339")
        level, src, seq, trunc = (line.get(key) for key in ("level", "_src", "_seq", "_trunc"))
        return cls(
            id=named["_id"],
            timestamp=timestamp,
            fields={
                field_name(key): value
                for key, value in line.items()
                if key not in _RESERVED and (not key.startswith("_") or key.endswith("_"))
            },
            type=named["_type"],
            tag=named["_tag"],
            level=level if isinstance(level, str) else "INFO",
            src=src if isinstance(src, str) else None,
            seq=seq if isinstance(seq, int) and not isinstance(seq, bool) else None,
            trunc=tuple(str(name) for name in trunc) if isinstance(trunc, list) else (),
        )


def write(record: Record) -> str:
    """Return `record.to_line()`; the older name."""
    return record.to_line()


def read(line: str) -> Record:
    """Return `Record.from_line(line)`; the older name."""
    return Record.from_line(line)


def field_key(name: str) -> str:
    """Return the key of a user's field on the line: a name of the format's gets `_` appended.

    So does a name that this rule made, which keeps it reversible: `level` is `level_`, `level_` is `level__`.
    """
    return name + "_" if name.startswith("_") or name.rstrip("_") in _RESERVED else name


def field_name(key: str) -> str:
    """Return the user's name of a field by its key on the line: the inverse of `field_key`."""
    return key[:-1] if key.endswith("_") and (key.startswith("_") or key.rstrip("_") in _RESERVED) else key


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
        The milliseconds, or None if the value is no time between the years 1 and 9999.
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
