"""A row becomes a row of a fragment: identity, digest, declared columns, and JSON for the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar

import orjson

from consumers.lines.extract import HEAD, has_long_number, has_plain_names
from consumers.lines.times import milliseconds
from consumers.outcomes import Carried, Carrier
from consumers.rows.clashes import RowKind
from consumers.rows.lake.fragments import HOUR_MS, columns, digest_of
from consumers.rows.lake.limits import MAX_BYTES, MAX_ROWS
from consumers.rows.table import (
    DIMENSIONS,
    FIXED,
    MAX_ID_BYTES,
    SOURCE,
    SPAN_MS,
    UNDECLARED,
    Plan,
    Plans,
    Row,
    Type,
    UnmappableError,
    offset,
    plain_dimensions,
    timed_measures,
)

# Different sets of columns, and of dimensions, that are remembered: some megabytes.
MAX_KNOWN: Final = 1_000
# What a row takes in memory besides its values, about.
_ROW_BYTES: Final = 500
# orjson reads smaller numbers exactly.
_LARGE: Final = 10**15

_COMMON = (SOURCE, *DIMENSIONS)

_Known = TypeVar("_Known")
Value = bool | float | str
Values = tuple[Value, ...]


class FragmentRow(NamedTuple):
    """A row as a fragment has it.

    Attributes:
        time: Milliseconds since 1970.
        identity: Time, nanoseconds, `_id`, digest, `_type`, source, route, method, client. A missing one is
            empty text, so that rows can be sorted by it.
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
        text: The columns, sorted, as JSON.
        arrange: Returns a row's values in this order.
        names: Those of the columns that fragments have.
        named: Returns a row's values of these.
        rest: The other columns, which are in `fields`.
        others: Returns a row's values of these.
    """

    __slots__ = ("arrange", "named", "names", "others", "rest", "text")

    def __init__(self, given: Sequence[str], known: Mapping[str, Any]) -> None:
        places = {name: given.index(name) for name in sorted(given)}
        self.text = orjson.dumps(list(places))
        self.arrange = _getter(list(places.values()))
        self.names = tuple(name for name in places if name in known)
        self.named = _getter([places[name] for name in self.names])
        self.rest = tuple(name for name in places if name not in known)
        self.others = _getter([places[name] for name in self.rest])


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
        "_fields",
        "_found",
        "_kinds",
        "_nested",
        "_numbers",
        "_texts",
        "_wholes",
        "columns",
        "dimensional",
        "dimensions",
        "has_nested",
        "has_nulls",
        "plan",
        "type",
    )

    def __init__(
        self,
        type_: str,
        plan: Plan,
        found: Mapping[str, tuple[str, Mapping[type, Type]]],
        dimensions: Sequence[str],
    ) -> None:
        absent = [(column, default.value) for field, column, default in plan.defaults if field not in found]
        self.type = type_
        self.plan = plan
        self.dimensional = (type_, *dimensions)
        self.dimensions = _getter(dimensions)
        self._absent = tuple(column for column, _ in absent)
        self._defaults = tuple(value for _, value in absent)
        self._fields = list(found.values())
        self._found = _getter(list(found))
        self.has_nulls = False
        self._set_kinds(())

    def values(self, line: Mapping[str, Any]) -> Values | None:
        """Return a line's values as the columns have them, or None if one does not fit as it is.

        Raises:
            LookupError: If a value does not fit its column by its class.
            TypeError: If it is nested too deeply for orjson.
            OverflowError: If it is a number beyond DOUBLE.
        """
        found = self._found(line)
        kinds = tuple(map(type, found))
        if kinds != self._kinds:
            self._set_kinds(kinds)
        texts = self._texts(found)
        # To add zero makes a float of a whole number, and zero of negative zero.
        numbers = tuple(map(_ADD_TO_ZERO, self._numbers(found)))
        wholes = self._wholes(found)
        if "" in texts or not _are_exact(numbers) or not _are_exact(wholes):
            return None
        return (*texts, *numbers, *wholes, *map(_json, self._nested(found)), *self._defaults)

    def _set_kinds(self, kinds: tuple[type, ...]) -> None:
        """Group the values by what is done with them; lines of one type mostly have the same classes."""
        self._kinds: tuple[type, ...] = ()  # until all of them fit
        self.has_nested = dict in kinds or list in kinds
        self.has_nulls = self.has_nulls or type(None) in kinds
        groups: dict[str, list[int]] = {"text": [], "number": [], "whole": [], "nested": []}
        for place, ((_, types), kind) in enumerate(zip(self._fields, kinds, strict=False)):
            groups[_GROUPS[kind, types[kind]]].append(place)
        self._texts, self._numbers, self._wholes, self._nested = map(_getter, groups.values())
        order = [place for group in groups.values() for place in group]
        self.columns = (*[self._fields[place][0] for place in order], *self._absent)
        self._kinds = kinds


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

    def pack(self, row: Row) -> FragmentRow:
        """Return a row, whole, however large it is."""
        measures = {name: measure.value for name, measure in row.measures.items() if name not in FIXED}
        series = _series_of(row.dimensions)
        names, values = (*measures, *series.names), (*measures.values(), *series.values)
        return self._packed(
            row.id, row.time, row.type, version=row.version, common=series.common, names=names, values=values
        )

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
        shape = self._line_shape(line)
        if shape is not None and shape.has_nulls:
            line = {name: value for name, value in line.items() if value is not None}
            shape = self._line_shape(line)
        if shape is None or not _has_plain_head(line):
            return None
        try:
            time = milliseconds(line["timestamp"])
            series = self._find_series(line, source, shape)
            values = shape.values(line)
            if time is None or series is None or values is None:
                return None
            # A long number that is a value itself is too large for `values`.
            if shape.has_nested and has_long_number(message):
                return None
            timed_measures(time // SPAN_MS)  # the time is one that rows can have
            names = shape.columns
            if series.names:
                names, values = (*names, *series.names), (*values, *series.values)
            return self._packed(
                line["_id"],
                time,
                shape.type,
                version=self.plans.version,
                common=series.common,
                names=names,
                values=values,
            )
        except (LookupError, TypeError, OverflowError, UnmappableError):
            return None

    def avoid(self, kind: RowKind) -> None:
        """Do nothing: the lake refuses no kind of row."""

    def _packed(
        self,
        identity: str,
        time: int,
        type_: str,
        *,
        version: int,
        common: tuple[str, ...],
        names: tuple[str, ...],
        values: Values,
    ) -> FragmentRow:
        shape = self._shapes.get(names)
        if shape is None:
            shape = _remember(self._shapes, names, _Shape(names, self._known))
        text = orjson.dumps(shape.arrange(values))
        fields = None
        if shape.rest:
            fields = orjson.dumps(dict(zip(shape.rest, shape.others(values), strict=True))).decode()
        digest = digest_of(shape.text, text)
        own: tuple[int | str, ...] = (time, offset(identity, 0), identity, digest, type_, *common)
        size = _ROW_BYTES + 2 * len(text)
        return FragmentRow(time, own, version, shape.names, shape.named(values), fields, size)

    def _line_shape(self, line: dict[str, Any]) -> _LineShape | None:
        """Return the shape of a line, or None if its row has more than a measure for each field."""
        key = (line.get("_type", ""), *line)  # a line of another logger may have none
        try:
            return self._line_shapes[key]
        except KeyError:
            return _remember(self._line_shapes, key, self._new_line_shape(line))

    def _new_line_shape(self, line: dict[str, Any]) -> _LineShape | None:
        # CloudWatch's envelope for metrics is not a field.
        names = [name for name in line if name != "_aws"]
        if not has_plain_names(names):
            return None
        try:
            type_, plan = self.plans.of(line["_type"])
        except UnmappableError:
            return None
        dimensions = {field for field, _, _, _ in plan.dimensions}
        fields = [name for name in names[len(HEAD) :] if name not in dimensions]
        columns = {name: plan.column(name) for name in fields}
        found = {name: column for name, column in columns.items() if column is not None}
        if not fields or len(found) < len(fields) or len(FIXED) + len(fields) > plan.room:
            return None
        shape = _LineShape(type_, plan, found, [name for name in names if name in dimensions])
        shape.has_nulls = None in line.values()
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
            _remember(self._series, key, found)
        return found


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


# What is done with a value of a class in a column of a type.
_GROUPS: Final[Mapping[tuple[type, Type], str]] = {
    (str, "VARCHAR"): "text",
    (bool, "BOOLEAN"): "text",
    (int, "DOUBLE"): "number",
    (float, "DOUBLE"): "number",
    (int, "BIGINT"): "whole",
    (dict, "VARCHAR"): "nested",
    (list, "VARCHAR"): "nested",
}
_ADD_TO_ZERO: Final = (0.0).__add__


def _are_exact(numbers: tuple[float, ...]) -> bool:
    """Tell whether all numbers are so small that orjson reads them exactly; what is not a number is not."""
    return sum(map(abs, numbers)) < _LARGE


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _series_of(dimensions: Mapping[str, str]) -> _Series:
    others = {name: value for name, value in dimensions.items() if name not in _COMMON}
    return _Series(tuple(dimensions.get(name, "") for name in _COMMON), tuple(others), tuple(others.values()))


def _getter(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets the values of some keys, as a tuple however many they are."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple(values[key] for key in keys)


def _has_plain_head(line: Mapping[str, Any]) -> bool:
    """Return whether a line's identity is short, and the line is numbered."""
    identity = line["_id"]
    return (
        len(identity) <= MAX_ID_BYTES
        and identity.isascii()
        and line["_src"].__class__ is str
        and line["_seq"].__class__ is int
    )


def _remember(known: dict[Any, _Known], key: Any, found: _Known) -> _Known:
    """Keep what was found; the cache is cleared when it is full."""
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = found
    return found
