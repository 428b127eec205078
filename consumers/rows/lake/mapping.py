"""A row becomes a row of a fragment: identity, digest, declared columns, and JSON for the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple

import orjson

from consumers.lines.extract import has_long_number
from consumers.lines.times import milliseconds
from consumers.outcomes import Carried, Carrier
from consumers.rows.clashes import RowKind
from consumers.rows.lake.digest import Value, digester
from consumers.rows.lake.fragments import HOUR_MS, columns
from consumers.rows.lake.limits import MAX_BYTES, MAX_ROWS
from consumers.rows.ordinary import OrdinaryKeys, has_plain_head, ordinary_keys, remember
from consumers.rows.table import (
    DIMENSIONS,
    FIXED,
    SOURCE,
    SPAN_MS,
    UNDECLARED,
    Plans,
    Row,
    Type,
    UnmappableError,
    plain_dimensions,
    timed_measures,
)

# What a row takes in memory besides its values, about.
_ROW_BYTES: Final = 500
_MAX_BIGINT: Final = 2**63 - 1
# Whole numbers beyond 64 bits are the only ones that orjson reads otherwise than they are. It makes floats of
# them, which it writes with an exponent.
_EXPONENT: Final = "e+"

_COMMON = (SOURCE, *DIMENSIONS)

Values = tuple[Value, ...]


class FragmentRow(NamedTuple):
    """A row as a fragment has it.

    Attributes:
        time: Milliseconds since 1970.
        identity: Time, `_id`, digest, `_type`, source, route, method, client. A missing one is empty text, so
            that rows can be sorted by it.
        version: Which mapping made it.
        names: The columns besides, declared ones and the table's own, in which it has a value.
        values: Their values.
        fields: Its other values as JSON; None if there are none.
        size: About how many bytes it takes in memory.
    """

    time: int
    identity: tuple[int | str, ...]
    version: int
    names: tuple[str, ...]
    values: Values
    fields: str | None
    size: int


class _Series(NamedTuple):
    """Dimensions that many rows share: those that every row has, and the names and values of the others."""

    common: tuple[str, ...]
    names: tuple[str, ...]
    values: Values


class _Shape:
    """What rows with values in the same columns have in common.

    Attributes:
        names: Those of the columns that fragments have, sorted.
        named: Returns a row's values of these.
        digest_of: Makes a row's digest of the JSON of these values and of `fields`.
        rest: The other columns, sorted: those in `fields`.
        others: Returns a row's values of these.
        fields: These of the last row, which the next row's replace: the keys are the same.
    """

    __slots__ = ("digest_of", "fields", "named", "names", "others", "rest")

    def __init__(self, given: Sequence[str], known: Mapping[str, Any]) -> None:
        places = {name: given.index(name) for name in sorted(given)}
        self.names = tuple(name for name in places if name in known)
        self.named = _getter([places[name] for name in self.names])
        self.digest_of = digester(self.names)
        self.rest = tuple(name for name in places if name not in known)
        self.others = _getter([places[name] for name in self.rest])
        self.fields: dict[str, Value] = {}


class _LineShape:
    """What lines of one type with the same keys have in common.

    Attributes:
        type: The table's name of the type.
        plan: What becomes of the type's fields.
        dimensional: The type, and the fields that are dimensions.
        dimensions: Returns the values of these fields.
        columns: The columns of the last line's measures, in the order of their values.
        has_nested: Whether an object or a list was among the last line's values.
        has_nulls: Whether a line of this shape had a null. A null is not a measure, so lines with these keys
            are read without their nulls.
    """

    __slots__ = (
        "_absent",
        "_defaults",
        "_ends",
        "_fields",
        "_found",
        "_kinds",
        "columns",
        "dimensional",
        "dimensions",
        "has_nested",
        "has_nulls",
        "plan",
        "shapes",
        "type",
    )

    def __init__(self, keys: OrdinaryKeys) -> None:
        found, defaults = keys.columns, keys.plan.defaults
        absent = [(column, default.value) for field, column, default in defaults if field not in found]
        self.type = keys.record_type
        self.plan = keys.plan
        self.dimensional = (keys.record_type, *keys.dimensions)
        self.dimensions = _getter(keys.dimensions)
        self._absent = tuple(column for column, _ in absent)
        self._defaults = tuple(value for _, value in absent)
        self._fields = [(field, column, types) for field, (column, types) in found.items()]
        self.has_nested, self.has_nulls = False, keys.has_nulls
        self._found = _getter([])
        self._kinds: list[type] | None = None

    def values(self, line: Mapping[str, Any]) -> Values | None:
        """Return a line's values as the columns have them, or None if one does not fit as it is.

        A whole number beyond 64 bits in an object or a list is a float, as orjson reads it.

        Raises:
            LookupError: If a value does not fit its column by its class.
            TypeError: If it is nested too deeply for orjson.
            OverflowError: If it is a number beyond DOUBLE.
        """
        found = self._found(line)
        if [*map(type, found)] != self._kinds:
            self._set_kinds(line)
            found = self._found(line)
        texts_end, wholes_end, converted_end, fractions_end = self._ends
        kept = found[:wholes_end]
        if "" in kept:
            return None
        if texts_end < wholes_end and max(kept[texts_end:]) > _MAX_BIGINT:
            return None
        numbers = map(float, found[wholes_end:converted_end])
        fractions: Iterable[float] = found[converted_end:fractions_end]
        if 0.0 in fractions:
            fractions = [number + 0.0 for number in fractions]  # which makes zero of negative zero
        if not self.has_nested:
            return (*kept, *numbers, *fractions, *self._defaults)
        nested = [orjson.dumps(value).decode() for value in found[fractions_end:]]
        return (*kept, *numbers, *fractions, *nested, *self._defaults)

    def _set_kinds(self, line: Mapping[str, Any]) -> None:
        """Group the values by what is done with them; lines of one type mostly have the same classes."""
        self._kinds = None  # until all of them fit
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _ORDER}
        kinds = {field: line[field].__class__ for field, _, _ in self._fields}
        self.has_nested = dict in kinds.values() or list in kinds.values()
        self.has_nulls = self.has_nulls or type(None) in kinds.values()
        for field, column, types in self._fields:
            kind = kinds[field]
            groups[_GROUPS[kind, types[kind]]].append((field, column))
        order = [item for group in groups.values() for item in group]
        self._found = _getter([field for field, _ in order])
        self._ends = tuple(accumulate(len(group) for group in groups.values()))[:-1]
        self.columns = (*[column for _, column in order], *self._absent)
        self.shapes: dict[tuple[str, ...], _Shape] = {}
        self._kinds = [kinds[field] for field, _ in order]


class LakePacker:
    """Packs rows, one after the other: `consumers.rows.store.Packer`. For one thread.

    Args:
        plans: What is declared of records.
    """

    def __init__(self, plans: Plans = UNDECLARED) -> None:
        self.plans = plans
        self._known = columns(plans.columns)
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._line_shapes: dict[tuple[str, ...], _LineShape | None] = {}
        self._series: dict[tuple[Any, ...], _Series | None] = {}
        self._last_key: list[Any] = []
        self._last_shape: _LineShape | None = None

    def pack(self, row: Row) -> FragmentRow:
        """Return a row, whole, however large it is."""
        measures = {name: measure.value for name, measure in row.measures.items() if name not in FIXED}
        series = _series_of(row.dimensions)
        names, values = (*measures, *series.names), (*measures.values(), *series.values)
        shape = self._shape(names)
        return _packed(row.id, row.time, row.type, row.version, series.common, shape, values)

    def pack_shortened(self, row: Row, overflow_key: str) -> FragmentRow:  # noqa: ARG002 - it is never shortened
        """Return a row, whole."""
        return self.pack(row)

    def pack_line(self, line: dict[str, Any], message: str, source: str) -> FragmentRow | None:
        """Return what packing its row would make of a line, sooner, or None if the line is unusual.

        `table.row` defines what a row is. This does the same for nearly all lines: those that begin with the
        emitter's own keys and whose values fit their columns as they are.

        Args:
            line: The line's object, which carries the tag.
            message: The line.
            source: The log group that it came from.
        """
        key = [line.get("_type", ""), *line]  # a line of another logger may have none
        # Most lines are like the one before.
        shape = self._last_shape if key == self._last_key else self._line_shape(line)
        if shape is not None and shape.has_nulls:
            line = {name: value for name, value in line.items() if value is not None}
            shape = self._line_shape(line)
        if shape is None or not has_plain_head(line):
            return None
        try:
            time = milliseconds(line["timestamp"])
            series = self._find_series(line, source, shape)
            values = shape.values(line)
            if time is None or series is None or values is None:
                return None
            timed_measures(time // SPAN_MS)  # the time is one that rows can have
            if series.values:
                values += series.values
            row_shape = shape.shapes.get(series.names)
            if row_shape is None:
                row_shape = shape.shapes[series.names] = self._shape((*shape.columns, *series.names))
            return _packed(
                line["_id"],
                time,
                shape.type,
                self.plans.version,
                series.common,
                row_shape,
                values,
                message if shape.has_nested else "",
            )
        except (LookupError, TypeError, OverflowError, UnmappableError):
            return None

    def avoid(self, kind: RowKind) -> None:
        """Do nothing: the lake refuses no kind of row."""

    def _shape(self, names: tuple[str, ...]) -> _Shape:
        shape = self._shapes.get(names)
        return shape or remember(self._shapes, names, _Shape(names, self._known))

    def _line_shape(self, line: dict[str, Any]) -> _LineShape | None:
        """Return the shape of a line, or None if its row has more than a measure for each field."""
        key = [line.get("_type", ""), *line]
        found = tuple(key)
        try:
            shape = self._line_shapes[found]
        except KeyError:
            keys = ordinary_keys(line, self.plans)
            shape = remember(self._line_shapes, found, keys and _LineShape(keys))
        self._last_key, self._last_shape = key, shape
        return shape

    def _find_series(self, line: dict[str, Any], source: str, shape: _LineShape) -> _Series | None:
        """Return a line's dimensions, or None if its row says more of them than that."""
        values = shape.dimensions(line)
        key = (shape.dimensional, source, values)
        try:
            return self._series[key]
        except KeyError:
            if float in map(type, values):
                return None  # it may have been a whole number that is too long for orjson
            dimensions = plain_dimensions(line, source, shape.plan)
        found = None if dimensions is None else _series_of(dimensions)
        # Numbers of different types are the same key.
        if all(value is None or value.__class__ is str for value in values):
            remember(self._series, key, found)
        return found


def _packed(  # noqa: PLR0917 - one call for each row
    identity: str,
    time: int,
    type_: str,
    version: int,
    common: tuple[str, ...],
    shape: _Shape,
    values: Values,
    message: str = "",
) -> FragmentRow:
    """Return a row.

    Raises:
        OverflowError: If the message, which has objects or lists, has a whole number beyond 64 bits.
    """
    named, fields = shape.named(values), b""
    if shape.rest:
        # There are as many values; to look whether there are takes a quarter of the time.
        shape.fields.update(zip(shape.rest, shape.others(values)))  # noqa: B905 - see above
        fields = orjson.dumps(shape.fields)
    text = orjson.dumps(named) + fields
    # To look into the values takes longer, and into the message.
    if message and b"+" in text and _has_exponent(values) and has_long_number(message):
        raise OverflowError("a whole number is too long for orjson")
    made: FragmentRow = _new(
        FragmentRow,
        (
            time,
            (time, identity, shape.digest_of(text), type_, *common),
            version,
            shape.names,
            named,
            fields.decode() if fields else None,
            _ROW_BYTES + 2 * len(text),
        ),
    )
    return made


def _has_exponent(values: Values) -> bool:
    """Return whether an object or a list, which is text here, may have a number with an exponent."""
    return any(_EXPONENT in value for value in values if isinstance(value, str))


def cut_at_hours(
    rows: Iterable[Carried[Carrier, FragmentRow]],
) -> Iterator[list[Carried[Carrier, FragmentRow]]]:
    """Cut rows into requests: one for each hour of their times, unless more wait than memory is meant for.

    Args:
        rows: Rows, each with what it carries along.
    """
    waiting: dict[int, _Hour[Carrier]] = {}
    held = size = 0
    for item in rows:
        row = item[1]
        hour = row.time // HOUR_MS
        rows_of_hour = waiting.get(hour)
        if rows_of_hour is None:
            rows_of_hour = waiting[hour] = _Hour()
        rows_of_hour.rows.append(item)
        rows_of_hour.size += row.size
        held += 1
        size += row.size
        if held >= MAX_ROWS or size >= MAX_BYTES:
            largest = waiting.pop(max(waiting, key=lambda each: waiting[each].size))
            held -= len(largest.rows)
            size -= largest.size
            yield largest.rows
    for rest in waiting.values():
        yield rest.rows


class _Hour(Generic[Carrier]):
    """The rows of an hour that wait, and about how many bytes they take."""

    __slots__ = ("rows", "size")

    def __init__(self) -> None:
        self.rows: list[Carried[Carrier, FragmentRow]] = []
        self.size = 0


# What is done with a value of a class in a column of a type: it is kept, kept if it is not too large, made a
# float, kept unless it is negative zero, or written as JSON.
_ORDER: Final = ("text", "whole", "converted", "fraction", "nested")
_GROUPS: Final[Mapping[tuple[type, Type], str]] = {
    (str, "VARCHAR"): "text",
    (bool, "BOOLEAN"): "text",
    (int, "DOUBLE"): "converted",
    (float, "DOUBLE"): "fraction",
    (int, "BIGINT"): "whole",
    (dict, "VARCHAR"): "nested",
    (list, "VARCHAR"): "nested",
}
_new: Any = tuple.__new__  # half of the time that calling the class takes, for every row


def _series_of(dimensions: Mapping[str, str]) -> _Series:
    others = {name: value for name, value in dimensions.items() if name not in _COMMON}
    return _Series(tuple(dimensions.get(name, "") for name in _COMMON), tuple(others), tuple(others.values()))


def _getter(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets the values of some keys, as a tuple however many they are."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple(values[key] for key in keys)
