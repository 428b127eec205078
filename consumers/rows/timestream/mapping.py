"""A row becomes a Timestream record: its point in time, its size, its place in the body of a request.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_Record.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import orjson

from consumers.lines.extract import HEAD, has_long_number, has_plain_names, milliseconds
from consumers.rows.table import (
    DAY_MS,
    ID,
    MAX_DIMENSION_BYTES,
    MAX_ID_BYTES,
    OVERFLOW,
    PARTITION,
    UNDECLARED,
    Measure,
    Plan,
    Plans,
    Row,
    Type,
    UnmappableError,
    partition,
    place,
)

# "2 KB" for a record, without saying whether 2,000 or 2,048, nor what counts: the stricter reading of both.
# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORD_BYTES = 2_000
SHORTEST_TEXT_BYTES = 16  # a text is cut no further than to half of this

OFFSETS = 1_000_000  # nanoseconds in a millisecond

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORDS = 100
# Rows that wait at most for others of their kind: eight requests' worth.
WINDOW = 8 * MAX_RECORDS

SHORTEST_TYPE = "BIGINT"
# Different sets of columns, and of dimensions, that are remembered: some megabytes.
MAX_KNOWN = 1_000
# Smaller whole numbers are read exactly, and are said as DOUBLE by their digits.
_LARGE, _LEAST = 10**15, -(10**15)
_LARGE_FLOAT, _LEAST_FLOAT = float(_LARGE), float(_LEAST)  # compared sooner with floats

Carrier = TypeVar("Carrier")
Known = TypeVar("Known")


def offset(record_id: str, attempt: int) -> int:
    """Return the nanoseconds that are added to a record's millisecond, from 0 to 999,999.

    Timestream knows a point by its dimensions, measure name and time, and CloudWatch's time has milliseconds
    only: without an offset, two requests of one millisecond are one point. Derived from the identity, the
    offset is the same for every copy; another attempt gives another place when one is taken.
    """
    digest = hashlib.blake2b(f"{record_id}\0{attempt}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % OFFSETS


class Packed(NamedTuple):
    """A row ready to be sent: all that a request says of it, but for its point in time.

    No dataclass, because a frozen one takes twice as long to make.

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


Place = tuple[tuple[tuple[str, str], ...], int]
"""The names and values of a row's dimensions, and the bytes of these and of its type."""


Item = dict[str, Any]
"""A measure as a request says it."""


class _Shape:
    """What lines of one type with the same keys have in common: the JSON of their measures but for values.

    Attributes:
        type: Timestream's measure name.
        plan: What becomes of the type's fields.
        items: All measures, in their order.
        framing: The bytes of their JSON that are neither names nor values.
        values: Takes from a line what it says, the identity first.
        slots: The measures that are for these values.
        types: The types that these have, by a value's class.
        kinds: The classes of the values that came last. The measures have these types, and are told apart by
            them: `texts`, `floats`, `wholes` with the fraction that a DOUBLE has, and `others`, each with
            the place of its value.
        day: The day that the partition's measures say, since 1970.
        has_nested: Whether an object or a list was among the values that came last.
        has_nulls: Whether a null has ever been among the values. There is no such measure: lines with these
            keys are looked at without their nulls.
    """

    __slots__ = (
        "day",
        "floats",
        "framing",
        "has_nested",
        "has_nulls",
        "items",
        "kinds",
        "others",
        "plan",
        "slots",
        "texts",
        "type",
        "types",
        "values",
        "wholes",
    )

    def __init__(
        self, type_: str, plan: Plan, columns: Mapping[str, tuple[str, Mapping[type, Type]]]
    ) -> None:
        absent = [(column, default) for name, column, default in plan.defaults if name not in columns]
        said = [ID, *PARTITION, *[column for column, _ in columns.values()]]
        self.type = type_
        self.plan = plan
        self.items, self.framing = _items([*said, *[column for column, _ in absent]])
        self.values = itemgetter(ID, *columns)
        own = 1 + len(PARTITION)
        self.slots = [self.items[0], *self.items[own : len(said)]]
        self.types: list[Mapping[type, Type]] = [{str: "VARCHAR"}, *[types for _, types in columns.values()]]
        for item in self.items[1:own]:
            item["Type"] = "VARCHAR"
        for item, (_, default) in zip(self.items[len(said) :], absent, strict=True):
            item["Type"], item["Value"] = default.type, _said(default)
        self.kinds: tuple[type, ...] = ()
        self.day: int | None = None
        self.has_nested = self.has_nulls = False

    def take(self, day: int, said: dict[str, Any]) -> bool:
        """Put into the measures what a line says, and tell whether all of it fits them as it is.

        Raises:
            LookupError: If a value does not fit its column by its class.
            TypeError: If it is nested too deeply for orjson.
            UnmappableError: If there is no such day.
        """
        if day != self.day:
            self._date(day)
        values = self.values(said)
        kinds = tuple(map(type, values))
        if kinds != self.kinds:
            self._type(kinds)
        for item, at in self.texts:
            text = item["Value"] = values[at]
            if not text:
                return False
        for item, at, fraction in self.wholes:
            whole = values[at]
            if not _LEAST < whole < _LARGE:
                return False
            item["Value"] = f"{whole}{fraction}"
        for item, at in self.floats:
            number = values[at]
            # What is not a number fails this as well.
            if not _LEAST_FLOAT < number < _LARGE_FLOAT:
                return False
            item["Value"] = repr(number or 0.0)
        for item, at, say in self.others:
            item["Value"] = say(values[at])
        return True

    def _type(self, kinds: tuple[type, ...]) -> None:
        """Give the measures the types of values of these classes; lines of one type mostly have the same."""
        self.kinds = ()  # until all of them fit
        self.has_nested = dict in kinds or list in kinds
        self.has_nulls = self.has_nulls or type(None) in kinds
        self.texts: list[tuple[Item, int]] = []
        self.floats: list[tuple[Item, int]] = []
        self.wholes: list[tuple[Item, int, str]] = []
        self.others: list[tuple[Item, int, Callable[[Any], str]]] = []
        for at, (item, types, kind) in enumerate(zip(self.slots, self.types, kinds, strict=True)):
            type_ = item["Type"] = types[kind]
            if kind is str:
                self.texts.append((item, at))
            elif kind is float:
                self.floats.append((item, at))
            elif kind is int:
                self.wholes.append((item, at, ".0" if type_ == "DOUBLE" else ""))
            else:
                self.others.append((item, at, _truth if kind is bool else _nested))
        self.kinds = kinds

    def _date(self, day: int) -> None:
        for item, measure in zip(self.items[1:], partition(day).values(), strict=False):
            item["Value"] = _said(measure)
        self.day = day


class Packer:
    """Packs rows, one after the other: those of the same columns share what is the same in their JSON.

    For one thread.

    Args:
        plans: What is declared of records.
    """

    def __init__(self, plans: Plans = UNDECLARED) -> None:
        self.plans = plans
        self._items: dict[tuple[str, ...], tuple[list[dict[str, Any]], int]] = {}
        self._shapes: dict[tuple[str, ...], _Shape | None] = {}
        self._places: dict[tuple[Any, ...], Place | None] = {}

    def pack(self, row: Row) -> Packed:
        """Return a row with its measures as JSON, which stays the same however often it is sent."""
        columns = tuple(row.measures)
        if columns not in self._items:
            _remember(self._items, columns, _items(columns))
        items, framing = self._items[columns]
        for item, measure in zip(items, row.measures.values(), strict=True):
            kind, value = measure
            item["Type"] = kind
            item["Value"] = value if kind == "VARCHAR" else _said(measure)
        measures = orjson.dumps(items)
        dimensions = tuple(row.dimensions.items())
        head = _bytes("".join([row.type, *row.dimensions, *row.dimensions.values()]))
        size = head + len(measures) - framing
        return Packed(row.id, row.time, row.type, row.version, dimensions, measures, size)

    def pack_line(self, said: dict[str, Any], message: str, source: str) -> Packed | None:
        """Return what packing its row would make of a line, sooner, or None if the line is unusual.

        What a row is, `table.row` says. This does the same for nearly all lines: those with the emitter's
        own keys at their beginning and values that fit their columns as they are, not more of them than a
        record holds. Of such a row there is nothing to count.

        Args:
            said: The line's object, which carries the tag.
            message: The line.
            source: The log group that it came from.
        """
        shape = self._shape(said)
        if shape is not None and shape.has_nulls:
            said = {name: value for name, value in said.items() if value is not None}
            shape = self._shape(said)
        if shape is None or not _has_plain_head(said):
            return None
        try:
            time = milliseconds(said["timestamp"])
            found = self._place(said, source, shape)
            if time is None or found is None or not shape.take(time // DAY_MS, said):
                return None
            # A long number that is a value itself is too large for `take`.
            if shape.has_nested and has_long_number(message):
                return None
            measures = orjson.dumps(shape.items)
        except (LookupError, TypeError, UnmappableError):
            return None
        dimensions, head = found
        size = head + len(measures) - shape.framing
        if size > MAX_RECORD_BYTES:
            return None
        return Packed(said["_id"], time, shape.type, self.plans.version, dimensions, measures, size)

    def _shape(self, said: dict[str, Any]) -> _Shape | None:
        """Return the shape of a line, or None if there is more to it than measures of the fields' own."""
        key = (said.get("_type", ""), *said)  # a line of another logger may have none
        try:
            return self._shapes[key]
        except KeyError:
            return _remember(self._shapes, key, self._new_shape(said))

    def _new_shape(self, said: dict[str, Any]) -> _Shape | None:
        # CloudWatch's envelope for metrics is no field.
        names = [name for name in said if name != "_aws"]
        if not has_plain_names(names):
            return None
        try:
            type_, plan = self.plans.of(said["_type"])
        except UnmappableError:
            return None
        dimensions = {field for field, _, _, _ in plan.dimensions}
        fields = [name for name in names[len(HEAD) :] if name not in dimensions]
        columns = {name: plan.column(name) for name in fields}
        known = {name: column for name, column in columns.items() if column is not None}
        if not fields or len(known) < len(fields) or 1 + len(PARTITION) + len(fields) > plan.room:
            return None
        shape = _Shape(type_, plan, known)
        shape.has_nulls = None in said.values()
        return shape

    def _place(self, said: dict[str, Any], source: str, shape: _Shape) -> Place | None:
        """Return a line's dimensions, or None if its row says more of them than that."""
        values = [said.get(field) for field, _, _, _ in shape.plan.dimensions]
        key = (shape.type, source, *values)
        try:
            return self._places[key]
        except KeyError:
            if float in map(type, values):
                return None  # it may have been a whole number that is too long for orjson
            dimensions = place(said, source, shape.plan)
        found = None
        if dimensions is not None and all(
            _bytes(value) <= MAX_DIMENSION_BYTES for value in dimensions.values()
        ):
            found = (
                tuple(dimensions.items()),
                _bytes("".join([shape.type, *dimensions, *dimensions.values()])),
            )
        # Numbers of different types are the same key.
        if all(value is None or value.__class__ is str for value in values):
            _remember(self._places, key, found)
        return found


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _nested(value: Any) -> str:
    return orjson.dumps(value).decode()


def _has_plain_head(said: dict[str, Any]) -> bool:
    """Tell whether an identity is a short one, and the line is numbered."""
    identity = said["_id"]
    return (
        len(identity) <= MAX_ID_BYTES
        and identity.isascii()
        and said["_src"].__class__ is str
        and said["_seq"].__class__ is int
    )


def _items(columns: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Return measures without values, and the bytes of their JSON that are not names."""
    items: list[dict[str, Any]] = [{"Name": name, "Type": SHORTEST_TYPE, "Value": ""} for name in columns]
    # Escapes and longer types make the text longer than what it says, never shorter.
    return items, len(orjson.dumps(items)) - _bytes("".join(columns))


def _remember(known: dict[Any, Known], key: Any, found: Known) -> Known:
    """Keep what was found, and forget all before where that is too much."""
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = found
    return found


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
    # Few kinds of records come many times: what is said of each kind is made once.
    kinds = [(packed.dimensions, packed.type, packed.version) for packed, _ in points]
    heads: dict[tuple[Any, ...], bytes] = dict.fromkeys(kinds, b"")
    first, type_, version = kinds[0]
    shared = set(first).intersection(*[dimensions for dimensions, _, _ in heads])
    common: dict[str, Any] = {"MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS"}
    if all(each == type_ for _, each, _ in heads):
        common["MeasureName"] = type_
    if all(each == version for _, _, each in heads):
        common["Version"] = version
    if shared:
        common["Dimensions"] = _wire([pair for pair in first if pair in shared])
    for kind in heads:
        dimensions, type_, version = kind
        own: dict[str, Any] = {}
        if rest := [pair for pair in dimensions if pair not in shared]:
            own["Dimensions"] = _wire(rest)
        if "MeasureName" not in common:
            own["MeasureName"] = type_
        if "Version" not in common:
            own["Version"] = version
        heads[kind] = orjson.dumps({**own, "Time": ""})[:-2]
    records = [
        b'%b%d","MeasureValues":%b}' % (heads[kind], time, packed.measures)
        for kind, (packed, time) in zip(kinds, points, strict=True)
    ]
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
    texts = [_said(measure) for measure in row.measures.values()]
    return _bytes("".join([row.type, *row.dimensions, *row.dimensions.values(), *row.measures, *texts]))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that takes at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode("utf-8", "ignore")


def _said(measure: Measure) -> str:
    """Return a measure's value as Timestream reads it."""
    kind, value = measure
    if kind == "BOOLEAN":
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
