"""A row becomes a Timestream record: its point in time, its size, its place in the body of a request.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_Record.html
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from consumers.lines.extract import has_long_number
from consumers.lines.times import milliseconds
from consumers.outcomes import Carried, Carrier
from consumers.rows.clashes import RowKind
from consumers.rows.ordinary import OrdinaryKeys, has_plain_head, ordinary_keys, remember
from consumers.rows.table import (
    FIXED,
    ID,
    MAX_DIMENSION_BYTES,
    OFFSETS,
    OVERFLOW,
    SPAN_MS,
    UNDECLARED,
    Measure,
    Plans,
    Row,
    Type,
    UnmappableError,
    offset,
    plain_dimensions,
    timed_measures,
)
from consumers.rows.timestream.limits import MAX_RECORD_BYTES, MAX_RECORDS

SHORTEST_TEXT_BYTES: Final = 16  # a text is cut no further than to half of this
# Rows that wait at most for others of their kind: eight requests' worth.
WINDOW: Final = 8 * MAX_RECORDS

SHORTEST_TYPE: Final = "BIGINT"
# Smaller whole numbers are read exactly, and are written as DOUBLE by their digits.
_LARGE, _LEAST = 10**15, -(10**15)
_LARGE_FLOAT, _LEAST_FLOAT = float(_LARGE), float(_LEAST)  # compared sooner with floats


class PackedRecord(NamedTuple):
    """A row ready to be sent: all of it that a request contains, except its time.

    No dataclass, because a frozen one takes twice as long to make.

    Attributes:
        id: The record's identity.
        time: Milliseconds since 1970.
        type: Timestream's measure name.
        version: Which mapping made it.
        dimensions: Names and values, the log group first.
        measures: The JSON of its `MeasureValues`.
        size: No less than the bytes of its names and values, and hardly more.
        tried: How many of its points are known to be taken.
    """

    id: str
    time: int
    type: str
    version: int
    dimensions: tuple[tuple[str, str], ...]
    measures: bytes
    size: int
    tried: int = 0

    def time_ns(self, attempt: int) -> int:
        """Return the point in time of the nth attempt, in nanoseconds since 1970."""
        return self.time * OFFSETS + offset(self.id, self.tried + attempt)


Series = tuple[tuple[tuple[str, str], ...], int]
"""The names and values of a row's dimensions, and the bytes of these and of its type."""


MeasureValue = dict[str, Any]
"""A measure as a request has it."""


class _Shape:
    """What lines of one type with the same keys have in common: the JSON of their measures but for values.

    Attributes:
        type: Timestream's measure name.
        plan: What becomes of the type's fields.
        avoided: The kinds of rows that are not made here.
        items: All measures, in their order.
        framing: The bytes of their JSON that are neither names nor values.
        values: Gets a line's values, the identity first.
        slots: The measures of these values.
        span: The span of time in the measures that every row has, since 1970.
        types: The types that these have, by a value's class.
        kinds: The classes of the last line's values. The measures have these types, and are grouped by
            them: `texts`, `floats`, `wholes` with the fraction that a DOUBLE has, and `others`, each with
            the index of its value.
        has_nested: Whether an object or a list was among the last line's values.
        has_nulls: Whether a null has ever been among the values. There is no such measure: lines with these
            keys are read without their nulls.
    """

    __slots__ = (
        "avoided",
        "floats",
        "framing",
        "has_nested",
        "has_nulls",
        "items",
        "kinds",
        "others",
        "plan",
        "slots",
        "span",
        "texts",
        "type",
        "types",
        "values",
        "wholes",
    )

    def __init__(self, keys: OrdinaryKeys, avoided: Container[RowKind]) -> None:
        columns, defaults = keys.columns, keys.plan.defaults
        absent = [(column, default) for name, column, default in defaults if name not in columns]
        present = [*FIXED, *[column for column, _ in columns.values()]]
        self.type = keys.record_type
        self.plan = keys.plan
        self.avoided = avoided
        self.items, self.framing = _items([*present, *[column for column, _ in absent]])
        self.values = itemgetter(ID, *columns)
        self.slots = [self.items[0], *self.items[len(FIXED) : len(present)]]
        self.types: list[Mapping[type, Type]] = [{str: "VARCHAR"}, *[types for _, types in columns.values()]]
        for item in self.items[1 : len(FIXED)]:
            item["Type"] = "VARCHAR"
        for item, (_, default) in zip(self.items[len(present) :], absent, strict=True):
            item["Type"], item["Value"] = default.type, _text(default)
        self.kinds: tuple[type, ...] = ()
        self.span: int | None = None
        self.has_nested, self.has_nulls = False, keys.has_nulls

    def fill(self, span: int, line: dict[str, Any]) -> bool:
        """Write a line's values into the measures, and return whether all of them fit as they are.

        Raises:
            LookupError: If a value does not fit its column by its class, or the kind of row is avoided.
            TypeError: If it is nested too deeply for orjson.
            UnmappableError: If Timestream cannot take a time in this span.
        """
        if span != self.span:
            self._fill_span(span)
        values = self.values(line)
        kinds = tuple(map(type, values))
        if kinds != self.kinds:
            self._set_types(kinds)
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
        for item, at, text_of in self.others:
            item["Value"] = text_of(values[at])
        return True

    def _set_types(self, kinds: tuple[type, ...]) -> None:
        """Give the measures the types for values of these classes; lines of one type mostly have the same."""
        self.kinds = ()  # until all of them fit
        self.has_nested = dict in kinds or list in kinds
        self.has_nulls = self.has_nulls or type(None) in kinds
        self.texts: list[tuple[MeasureValue, int]] = []
        self.floats: list[tuple[MeasureValue, int]] = []
        self.wholes: list[tuple[MeasureValue, int, str]] = []
        self.others: list[tuple[MeasureValue, int, Callable[[Any], str]]] = []
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
        if _kind(self.type, self.items) in self.avoided:
            raise LookupError(self.type)
        self.kinds = kinds

    def _fill_span(self, span: int) -> None:
        measures = timed_measures(span)
        for item, name in zip(self.items[1:], FIXED[1:], strict=False):
            item["Value"] = _text(measures[name])
        self.span = span


class RecordPacker:
    """Packs rows, one after the other: those of the same columns share what is the same in their JSON.

    For one thread.

    Args:
        plans: What is declared of records.
    """

    def __init__(self, plans: Plans = UNDECLARED) -> None:
        self.plans = plans
        self._items: dict[tuple[str, ...], tuple[list[dict[str, Any]], int]] = {}
        self._shapes: dict[tuple[str, ...], _Shape | None] = {}
        self._series: dict[tuple[Any, ...], Series | None] = {}
        self._avoided: set[RowKind] = set()

    def avoid(self, kind: RowKind) -> None:
        """Leave the lines whose rows are of this kind to `pack` from now on."""
        self._avoided.add(kind)
        self._shapes.clear()

    def pack(self, row: Row) -> PackedRecord | None:
        """Return a row as a record, or None if it is too large for one."""
        packed = self.record(row)
        return packed if fits(row, packed) else None

    def pack_shortened(self, row: Row, overflow_key: str) -> PackedRecord:
        """Return a row that is too large, shortened until it fits; it names the whole record."""
        return self.record(fit(row, overflow_key))

    def record(self, row: Row) -> PackedRecord:
        """Return a row, however large, with its measures as JSON: the same each time that it is sent."""
        columns = tuple(row.measures)
        if columns not in self._items:
            remember(self._items, columns, _items(columns))
        items, framing = self._items[columns]
        for item, measure in zip(items, row.measures.values(), strict=True):
            kind, value = measure
            item["Type"] = kind
            item["Value"] = value if kind == "VARCHAR" else _text(measure)
        measures = orjson.dumps(items)
        dimensions = tuple(row.dimensions.items())
        head = _bytes("".join([row.type, *row.dimensions, *row.dimensions.values()]))
        size = head + len(measures) - framing
        return PackedRecord(row.id, row.time, row.type, row.version, dimensions, measures, size)

    def pack_line(self, line: dict[str, Any], message: str, source: str) -> PackedRecord | None:
        """Return what packing its row would make of a line, sooner, or None if the line is unusual.

        `table.row` defines what a row is. This does the same for nearly all lines: those that begin with the
        emitter's own keys and whose values fit their columns as they are, not more of them than a record
        holds. Of such a row there is nothing to count.

        Args:
            line: The line's object, which carries the tag.
            message: The line.
            source: The log group that it came from.
        """
        shape = self._shape(line)
        if shape is not None and shape.has_nulls:
            line = {name: value for name, value in line.items() if value is not None}
            shape = self._shape(line)
        if shape is None or not has_plain_head(line):
            return None
        try:
            time = milliseconds(line["timestamp"])
            found = self._find_series(line, source, shape)
            if time is None or found is None or not shape.fill(time // SPAN_MS, line):
                return None
            # A long number that is a value itself is too large for `fill`.
            if shape.has_nested and has_long_number(message):
                return None
            measures = orjson.dumps(shape.items)
        except (LookupError, TypeError, UnmappableError):
            return None
        dimensions, head = found
        size = head + len(measures) - shape.framing
        if size > MAX_RECORD_BYTES:
            return None
        return PackedRecord(line["_id"], time, shape.type, self.plans.version, dimensions, measures, size)

    def _shape(self, line: dict[str, Any]) -> _Shape | None:
        """Return the shape of a line, or None if its row has more than a measure for each field."""
        key = (line.get("_type", ""), *line)  # a line of another logger may have none
        try:
            return self._shapes[key]
        except KeyError:
            keys = ordinary_keys(line, self.plans)
            return remember(self._shapes, key, keys and _Shape(keys, self._avoided))

    def _find_series(self, line: dict[str, Any], source: str, shape: _Shape) -> Series | None:
        """Return a line's dimensions, or None if its row has more about them."""
        values = [line.get(field) for field, _, _, _ in shape.plan.dimensions]
        key = (shape.type, source, *values)
        try:
            return self._series[key]
        except KeyError:
            if float in map(type, values):
                return None  # it may have been a whole number that is too long for orjson
            dimensions = plain_dimensions(line, source, shape.plan)
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
            remember(self._series, key, found)
        return found


def kind_of(packed: PackedRecord) -> RowKind:
    """Return the kind of a packed row."""
    return _kind(packed.type, orjson.loads(packed.measures))


def _kind(type_: str, items: Iterable[MeasureValue]) -> RowKind:
    return (type_, *((item["Name"], item["Type"]) for item in items))


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _nested(value: Any) -> str:
    return orjson.dumps(value).decode()


def _items(columns: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Return measures without values, and the bytes of their JSON that are not names."""
    items: list[dict[str, Any]] = [{"Name": name, "Type": SHORTEST_TYPE, "Value": ""} for name in columns]
    # Escapes and longer types make the text longer than its value, never shorter.
    return items, len(orjson.dumps(items)) - _bytes("".join(columns))


def body(database: str, table: str, points: Sequence[tuple[PackedRecord, int]]) -> bytes:
    """Return the body of WriteRecords: what all records share is in `CommonAttributes`.

    A dimension that differs stays with its record: Timestream puts both together, and refuses a record that
    has a dimension twice.
    https://docs.aws.amazon.com/timestream/latest/developerguide/API_WriteRecords.html

    Args:
        database: The database's name.
        table: The table's name.
        points: At least one record, each with its time in nanoseconds.
    """
    # Few kinds of records come many times, with the very same dimensions: what a kind has is written once.
    kinds = [(id(packed.dimensions), packed.type, packed.version) for packed, _ in points]
    examples = {kind: packed for kind, (packed, _) in zip(kinds, points, strict=True)}
    first = points[0][0]
    shared = set(first.dimensions).intersection(*[each.dimensions for each in examples.values()])
    common: dict[str, Any] = {"MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS"}
    if all(each.type == first.type for each in examples.values()):
        common["MeasureName"] = first.type
    if all(each.version == first.version for each in examples.values()):
        common["Version"] = first.version
    if shared:
        common["Dimensions"] = _wire([pair for pair in first.dimensions if pair in shared])
    heads = {}
    for kind, packed in examples.items():
        own: dict[str, Any] = {}
        if rest := [pair for pair in packed.dimensions if pair not in shared]:
            own["Dimensions"] = _wire(rest)
        if "MeasureName" not in common:
            own["MeasureName"] = packed.type
        if "Version" not in common:
            own["Version"] = packed.version
        heads[kind] = orjson.dumps({**own, "Time": ""})[:-2]
    records = [
        b'%b%d","MeasureValues":%b}' % (heads[kind], time, packed.measures)
        for kind, (packed, time) in zip(kinds, points, strict=True)
    ]
    start = orjson.dumps({"DatabaseName": database, "TableName": table, "CommonAttributes": common})[:-1]
    return b'%b,"Records":[%b]}' % (start, b",".join(records))


def requests(
    rows: Iterable[Carried[Carrier, PackedRecord]],
) -> Iterator[list[Carried[Carrier, PackedRecord]]]:
    """Cut rows into requests, those of a kind together, so that they have much in common.

    Every request but the last is full. At most `WINDOW` rows wait, of whatever kinds.

    Args:
        rows: Rows, each with what it carries along.
    """
    waiting: dict[tuple[Any, ...], list[Carried[Carrier, PackedRecord]]] = {}
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


def fits(row: Row, packed: PackedRecord) -> bool:
    """Return whether a row can be a record as it is.

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
        if measure.type == "VARCHAR" and name not in FIXED
    }
    while True:
        short = row._replace(dimensions=dimensions, measures=measures)
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
    texts = [_text(measure) for measure in row.measures.values()]
    return _bytes("".join([row.type, *row.dimensions, *row.dimensions.values(), *row.measures, *texts]))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that takes at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode("utf-8", "ignore")


def _text(measure: Measure) -> str:
    """Return a measure's value as Timestream reads it."""
    kind, value = measure
    if kind == "BOOLEAN":
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
