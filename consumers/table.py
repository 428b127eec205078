"""The table: which columns there are, of which types, and the row that a record becomes.

This is what a store holds, whichever store it is; the exporter reads the same columns. Names and types follow
docs/reference/table.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from tagline import Record, read, write

# The mapping's revision is a row's version: a replay after a change of the mapping updates rows, and a replay
# without one leaves them. Raise it when the same record becomes a different row.
REVISION = 1

Type = Literal["BIGINT", "BOOLEAN", "DOUBLE", "VARCHAR"]

# What a record is told apart by, beside its time. Everything else that it says is a measure.
DIMENSIONS = ("route", "method", "client")
# The log group; always there, because a record in Timestream needs a dimension.
SOURCE = "source"
# The partition of the lake, in the row itself, so that any query can group by it.
PARTITION = ("year", "month", "day")
ID, TRUNC, EXTRA, OVERFLOW = "_id", "_trunc", "_extra", "_overflow"
# The fields that were empty text, which a store of time series does not take: a JSON list of their names.
EMPTY = "_empty"

# Names that a field of a user's cannot have as they are: the store's and the table's own.
RESERVED = frozenset(["time", "ts_non_existent_col", SOURCE, *PARTITION])
# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
RESERVED_PREFIXES = ("ts_", "measure_name", "measure_value")
MAX_NAME_BYTES = 256
MAX_MEASURES = 256
MAX_ID_BYTES = 200  # what is cut to fit a record is never its identity

_BIGINT = range(-(2**63), 2**63)
_OTHER = re.compile(r"[^A-Za-z0-9_.-]|\.(?=x[0-9a-f]+\.)")
_ESCAPE = re.compile(r"\.x([0-9a-f]+)\.")


class UnmappableError(ValueError):
    """A record that the table cannot hold; the message names the field, the value and the limit."""


class Measure(NamedTuple):
    """A typed value in a row."""

    type: Type
    value: bool | float | str


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the table holds it.

    Attributes:
        id: The record's identity.
        time: Milliseconds since 1970.
        type: Kind of record; Timestream's measure name.
        dimensions: Text by column.
        measures: Typed values by column.
        not_numbers: How many values were left out because they are no finite numbers.
        version: Which mapping made it; of two rows at one point, the store keeps the higher.
    """

    id: str
    time: int
    type: str
    dimensions: Mapping[str, str]
    measures: Mapping[str, Measure]
    not_numbers: int = 0
    version: int = REVISION


def row(record: Record, source: str) -> Row:
    """Return the row for a record.

    Args:
        record: What the line said.
        source: The log group that it came from.

    Raises:
        UnmappableError: If a value does not fit its column's type, or the type's name is too long.
    """
    measure_name = column_name(record.type)
    if len(measure_name) > MAX_NAME_BYTES:
        raise UnmappableError(f"_type is {len(measure_name)} bytes long, more than {MAX_NAME_BYTES}")
    if len(record.id.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise UnmappableError(f"_id is longer than {MAX_ID_BYTES} bytes: {record.id[:50]!r}...")
    dimensions = {SOURCE: _text(source)}
    for name in DIMENSIONS:
        value = record.fields.get(name)
        if not _absent(value):
            dimensions[name] = _text(value) if isinstance(value, str) else _json(value)
    measures, not_numbers = _measures(record)
    return Row(record.id, record.timestamp, measure_name, dimensions, measures, not_numbers)


def _measures(record: Record) -> tuple[dict[str, Measure], int]:
    """Return a record's measures by column, and how many values were left out as no numbers."""
    when = datetime.fromtimestamp(record.timestamp // 1000, UTC)
    year, month, day = when.date().isoformat().split("-")
    measures = {ID: Measure("VARCHAR", _text(record.id))}
    for column, number in zip(PARTITION, (year, month, day), strict=True):
        measures[column] = Measure("VARCHAR", number)
    if record.trunc:
        measures[TRUNC] = Measure("VARCHAR", _json(record.trunc))
    extra: dict[str, Any] = {}
    not_numbers = 0
    for name, value in record.fields.items():
        if _absent(value) or name in DIMENSIONS:
            continue
        column = column_name(name)
        measure = _measure(name, value)
        if measure is None:
            not_numbers += 1
        elif len(measures) < MAX_MEASURES - 2 and len(column) <= MAX_NAME_BYTES:
            measures[column] = measure
        else:
            extra[name] = value
    if extra:
        measures[EXTRA] = Measure("VARCHAR", _json(extra))
    return measures, not_numbers


def _absent(value: Any) -> bool:
    """Tell whether there is nothing to store: a store of time series has no null and no empty text."""
    return value is None or value == ""


def column_name(field: str) -> str:
    """Return the column of a user's field: letters, digits, `_`, `.` and `-` as they are, others escaped.

    `field_name` is the inverse. Names of the table's own, and those that begin with `_`, get `_` appended;
    a first letter is escaped where the store forbids the beginning.
    """
    if field.startswith("_") or field.rstrip("_") in RESERVED:
        field += "_"
    column = _OTHER.sub(lambda found: _escaped(found[0]), field)
    return _escaped(column[0]) + column[1:] if column.startswith(RESERVED_PREFIXES) else column


def field_name(column: str) -> str:
    """Return the user's name of a field by its column."""
    field = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), column)
    if field.endswith("_") and (field.startswith("_") or field.rstrip("_") in RESERVED):
        field = field[:-1]
    return field


def overflow_key(record: Record, source: str) -> str:
    """Return where in the bucket the whole record is kept when its row cannot hold all of it."""
    day = datetime.fromtimestamp(record.timestamp // 1000, UTC).date().isoformat()
    name = hashlib.blake2b(f"{source}\0{record.id}".encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"overflow/{day}/{name}.json"


def overflow_body(record: Record) -> bytes:
    """Return the whole record as kept in the bucket; every copy of a record makes the same bytes."""
    return write(record.replace(src=None, seq=None)).encode()


def overflow_row(body: bytes, source: str) -> Row:
    """Return the row of a whole record as kept in the bucket, in which nothing is shortened.

    Args:
        body: What `overflow_body` made.
        source: The log group that the record came from.

    Raises:
        UnmappableError: If a value does not fit its column's type.
        tagline.UnreadableLineError: If the body is none of `overflow_body`'s.
    """
    return row(read(body.decode()), source)


def _measure(name: str, value: Any) -> Measure | None:
    """Return a value with its type, or None for a number that no column can hold (NaN, infinities)."""
    if name.endswith("_count"):
        whole = int(value) if isinstance(value, (bool, int, float)) and value == value // 1 else None
        if whole is None or whole not in _BIGINT:
            raise UnmappableError(f"{name} is {_json(value)[:100]}, not a whole number of 64 bits")
        return Measure("BIGINT", whole)
    if isinstance(value, bool):
        return Measure("BOOLEAN", value)
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return None
        # Timestream refuses negative zero, and says nothing that would tell it apart.
        return Measure("DOUBLE", number or 0.0) if math.isfinite(number) else None
    return Measure("VARCHAR", _text(value) if isinstance(value, str) else _json(value))


def _text(text: str) -> str:
    """Return text that UTF-8 can say: half a surrogate pair, which JSON lets through, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    return _text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _escaped(character: str) -> str:
    return f".x{ord(character):x}."
