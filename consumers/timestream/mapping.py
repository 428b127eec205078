"""A row becomes a Timestream record: its point in time, its size, its place in the body of a request.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_Record.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from consumers.table import ID, OVERFLOW, PARTITION, Measure, Row

# "2 KB" for a record, without saying whether 2,000 or 2,048, nor what counts: the stricter reading of both.
# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORD_BYTES = 2_000
# So long that all dimensions and what the table adds by itself fit into a record together.
MAX_DIMENSION_BYTES = 300
SHORTEST_TEXT_BYTES = 16  # a text is cut no further than to half of this

OFFSETS = 1_000_000  # nanoseconds in a millisecond

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORDS = 100
# Rows that wait at most for others of their kind: eight requests' worth.
WINDOW = 8 * MAX_RECORDS

SHORTEST_TYPE = "BIGINT"
# Different sets of columns that are remembered: more than there are types of records, and a few megabytes.
MAX_SHAPES = 1_000

Carrier = TypeVar("Carrier")


def offset(record_id: str, attempt: int) -> int:
    """Return the nanoseconds that are added to a record's millisecond, from 0 to 999,999.

    Timestream knows a point by its dimensions, measure name and time, and CloudWatch's time has milliseconds
    only: without an offset, two requests of one millisecond are one point. Derived from the identity, the
    offset is the same for every copy; another attempt gives another place when one is taken.
    """
    digest = hashlib.blake2b(f"{record_id}\0{attempt}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % OFFSETS


@dataclass(frozen=True, slots=True)
class Packed:
    """A row ready to be sent: all that a request says of it, but for its point in time.

    Attributes:
        id: The record's identity.
        time: Milliseconds since 1970.
        type: Timestream's measure name.
        version: Which mapping made it.
        dimensions: Names and values, the log group first.
        measures: The JSON of its `MeasureValues`.
        size: No less than the bytes of its names and values, and hardly more.
    """

    id: str
    time: int
    type: str
    version: int
    dimensions: tuple[tuple[str, str], ...]
    measures: bytes
    size: int

    def at(self, attempt: int) -> int:
        """Return the point in time of the nth attempt, in nanoseconds since 1970."""
        return self.time * OFFSETS + offset(self.id, attempt)


class Packer:
    """Packs rows, one after the other: those of the same columns share what is the same in their JSON.

    For one thread.
    """

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, ...], tuple[list[dict[str, Any]], int]] = {}

    def pack(self, row: Row) -> Packed:
        """Return a row with its measures as JSON, which stays the same however often it is sent."""
        columns = tuple(row.measures)
        shape = self._shapes.get(columns)
        if shape is None:
            if len(self._shapes) == MAX_SHAPES:
                self._shapes.clear()
            items: list[dict[str, Any]] = [
                {"Name": name, "Type": SHORTEST_TYPE, "Value": ""} for name in columns
            ]
            # Escapes and longer types make the text longer than what it says, never shorter.
            shape = self._shapes[columns] = items, len(orjson.dumps(items)) - _bytes("".join(columns))
        items, framing = shape
        for item, (kind, value) in zip(items, row.measures.values(), strict=True):
            item["Type"] = kind
            item["Value"] = (
                value
                if kind == "VARCHAR"
                else repr(value)
                if kind != "BOOLEAN"
                else "true"
                if value
                else "false"
            )
        measures = orjson.dumps(items)
        dimensions = tuple(row.dimensions.items())
        size = (
            _bytes("".join([row.type, *row.dimensions, *row.dimensions.values()])) + len(measures) - framing
        )
        return Packed(row.id, row.time, row.type, row.version, dimensions, measures, size)


def body(database: str, table: str, points: Sequence[tuple[Packed, int]]) -> bytes:
    """Return the body of WriteRecords: what all records share is said once, in `CommonAttributes`.

    A dimension that differs stays with its record: Timestream puts both together, and refuses a record that
    has a dimension twice.
    https://docs.aws.amazon.com/timestream/latest/developerguide/API_WriteRecords.html

    Args:
        database: The database's name.
        table: The table's name.
        points: At least one record, each with its time in nanoseconds.
    """
    first = points[0][0]
    shared = set(first.dimensions).intersection(*[packed.dimensions for packed, _ in points])
    common: dict[str, Any] = {"MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS"}
    if all(packed.type == first.type for packed, _ in points):
        common["MeasureName"] = first.type
    if all(packed.version == first.version for packed, _ in points):
        common["Version"] = first.version
    if shared:
        common["Dimensions"] = _wire([pair for pair in first.dimensions if pair in shared])
    # Few kinds of records come many times: what is said of each kind is made once.
    heads: dict[tuple[Any, ...], bytes] = {}
    records: list[bytes] = []
    for packed, time in points:
        kind = (packed.dimensions, packed.type, packed.version)
        head = heads.get(kind)
        if head is None:
            own: dict[str, Any] = {}
            if dimensions := [pair for pair in packed.dimensions if pair not in shared]:
                own["Dimensions"] = _wire(dimensions)
            if "MeasureName" not in common:
                own["MeasureName"] = packed.type
            if "Version" not in common:
                own["Version"] = packed.version
            head = heads[kind] = orjson.dumps({**own, "Time": ""})[:-2]
        records.append(b'%b%d","MeasureValues":%b}' % (head, time, packed.measures))
    start = orjson.dumps({"DatabaseName": database, "TableName": table, "CommonAttributes": common})[:-1]
    return b'%b,"Records":[%b]}' % (start, b",".join(records))


def batches(rows: Iterable[tuple[Carrier, Packed]]) -> Iterator[list[tuple[Carrier, Packed]]]:
    """Cut rows into requests, those of a kind together, so that they have much in common.

    Every request but the last is full. At most `WINDOW` rows wait, whatever there is of them.

    Args:
        rows: Rows, each with what it carries along.
    """
    waiting: dict[tuple[Any, ...], list[tuple[Carrier, Packed]]] = {}
    held = 0
    for item in rows:
        packed = item[1]
        kind = (packed.type, packed.dimensions[:1], packed.version)
        alike = waiting.setdefault(kind, [])
        alike.append(item)
        held += 1
        if len(alike) == MAX_RECORDS:
            held -= MAX_RECORDS
            yield waiting.pop(kind)
        elif held == WINDOW:
            held = 0
            yield from _cut_up(waiting)
            waiting.clear()
    yield from _cut_up(waiting)


def _cut_up(waiting: dict[tuple[Any, ...], list[Any]]) -> Iterator[list[Any]]:
    """Yield all that waits, kind after kind, in full requests and a last one."""
    rest = [item for kind in sorted(waiting) for item in waiting[kind]]
    for start in range(0, len(rest), MAX_RECORDS):
        yield rest[start : start + MAX_RECORDS]


def fits(row: Row, packed: Packed) -> bool:
    """Tell whether a row can be a record as it is.

    Args:
        row: The row.
        packed: The same, packed.
    """
    # Characters are at most four bytes: most rows are known to fit without a look at each text.
    return (
        4 * max(map(len, row.dimensions.values()), default=0) <= MAX_DIMENSION_BYTES
        or all(_bytes(value) <= MAX_DIMENSION_BYTES for value in row.dimensions.values())
    ) and (packed.size <= MAX_RECORD_BYTES or _size(row) <= MAX_RECORD_BYTES)


def fit(row: Row, overflow_key: str) -> Row:
    """Return a shortened row that names the whole record.

    The longest text is cut until the row fits; where no text is left to cut, the last measure is left out.

    Args:
        row: A row that does not fit.
        overflow_key: Where the whole record is kept; becomes the measure `_overflow`.
    """
    dimensions = {name: _cut(value, MAX_DIMENSION_BYTES) for name, value in row.dimensions.items()}
    measures = {OVERFLOW: Measure("VARCHAR", overflow_key), **row.measures}
    texts = {
        name: str(measure.value)
        for name, measure in row.measures.items()
        if measure.type == "VARCHAR" and name not in (ID, *PARTITION)
    }
    while True:
        short = replace(row, dimensions=dimensions, measures=measures)
        excess = _size(short) - MAX_RECORD_BYTES
        if excess <= 0:
            return short
        longest = max(texts, key=lambda name: len(texts[name].encode()), default="")
        size = len(texts.get(longest, "").encode())
        if size > SHORTEST_TEXT_BYTES:
            # At most in half: then the next longest is cut as well, and none is lost for all.
            texts[longest] = _cut(texts[longest], max(size - excess, size // 2, 1))
            measures[longest] = Measure("VARCHAR", texts[longest])
        else:
            last, _ = measures.popitem()
            texts.pop(last, None)


def _wire(dimensions: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions]


def _size(row: Row) -> int:
    """Return the bytes of a row's names and values."""
    texts = [value if isinstance(value, str) else _number(value) for _, value in row.measures.values()]
    return _bytes("".join([row.type, *row.dimensions, *row.dimensions.values(), *row.measures, *texts]))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that takes at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode("utf-8", "ignore")


def _number(value: object) -> str:
    """Return a measure that is no text as Timestream reads it."""
    return "true" if value is True else "false" if value is False else repr(value)
