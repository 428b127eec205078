"""A row becomes a row of a fragment: identity, digest, declared columns, and JSON for the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple

import orjson

from consumers.lines.extract import has_long_number
from consumers.lines.times import milliseconds
from consumers.outcomes import Carried, Carrier
from consumers.rows.clashes import RowKind
from consumers.rows.lake.digest import Value, digest, digester
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
        identity: Time, `_id`, digest, and the texts `_type`, source, route, method, client, which many rows
            share. A missing one is empty text, so that rows can be sorted by it.
        version: Which mapping made it.
        names: The columns besides, declared ones and the table's own, in which it has a value.
        values: Their values.
        fields: Its other values as JSON; None if there are none.
        size: About how many bytes it takes in memory.
    """

    time: int
    identity: tuple[int, str, int, tuple[str, ...]]
    version: int
    names: tuple[str, ...]
    values: Values
    fields: str | None
    size: int


class _Series(NamedTuple):
    """What many rows share: type, the dimensions that every row has, and names and values of the others."""

    common: tuple[str, ...]
    names: tuple[str, ...]
    values: Values


class _Split(NamedTuple):
    """How the values of lines are divided between columns and `fields`.

    Attributes:
        names: Those of the columns that fragments have, sorted.
        digest_of: Makes a row's digest of the JSON of these values and of `fields`.
        values: Returns these values of a row, and the others by name, from a line's and those of its series.
    """

    names: tuple[str, ...]
    digest_of: Callable[[bytes], int]
    values: Callable[[Values, Sequence[Value]], tuple[Values, dict[str, Value]]]


class _LineShape:
    """What lines of one type with the same keys have in common.

    Attributes:
        type: The table's name of the type.
        plan: What becomes of the type's fields.
        dimensional: The type, and the fields that are dimensions.
        dimensions: Returns the values of these fields.
        defaults: Columns that the lines have no field for, and their values.
        items: What is done with each of the last line's values, in their order, and its column.
        splits: How these values are divided, by the names in the row's series.
        has_nested: Whether an object or a list was among them.
        has_nulls: Whether a line of this shape had a null. A null is not a measure, so lines with these keys
            are read without their nulls.
    """

    __slots__ = (
        "_fields",
        "_found",
        "_kinds",
        "_texts_end",
        "_wholes_end",
        "defaults",
        "dimensional",
        "dimensions",
        "has_nested",
        "has_nulls",
        "items",
        "plan",
        "splits",
        "type",
    )

    def __init__(self, keys: OrdinaryKeys) -> None:
        found, defaults = keys.columns, keys.plan.defaults
        self.type = keys.record_type
        self.plan = keys.plan
        self.dimensional = (keys.record_type, *keys.dimensions)
        self.dimensions = _getter(keys.dimensions)
        self.defaults = tuple((column, made.value) for field, column, made in defaults if field not in found)
        self.items: tuple[tuple[str, str], ...] = ()
        self.splits: dict[tuple[str, ...], _Split] = {}
        self.has_nested, self.has_nulls = False, keys.has_nulls
        self._fields = [(field, column, types) for field, (column, types) in found.items()]
        self._found = _getter([])
        self._kinds: list[type] | None = None

    def values(self, line: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return a line's values in the order of `items`, or None if one does not fit its column as it is.

        Raises:
            LookupError: If a value does not fit its column by its class.
        """
        found = self._found(line)
        if [*map(type, found)] != self._kinds:
            self._set_kinds(line)
            found = self._found(line)
        if "" in found[: self._texts_end]:
            return None
        wholes = found[self._texts_end : self._wholes_end]
        return None if wholes and max(wholes) > _MAX_BIGINT else found

    def _set_kinds(self, line: Mapping[str, Any]) -> None:
        """Group the values by what is done with them; lines of one type mostly have the same classes."""
        self._kinds = None  # until all of them fit
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _CODE}
        for field, column, types in self._fields:
            kind = line[field].__class__
            self.has_nulls = self.has_nulls or kind is type(None)
            groups[_GROUPS[kind, types[kind]]].append((field, column))
        items = tuple((group, column) for group, members in groups.items() for _, column in members)
        if items != self.items:
            self.items, self.splits = items, {}
        fields = [field for members in groups.values() for field, _ in members]
        self._found = _getter(fields)
        self._texts_end = len(groups["text"])
        self._wholes_end = self._texts_end + len(groups["whole"])
        self.has_nested = bool(groups["nested"])
        self._kinds = [line[field].__class__ for field in fields]


class LakePacker:
    """Packs rows, one after the other: `consumers.rows.store.Packer`. For one thread.

    Args:
        plans: What is declared of records.
    """

    def __init__(self, plans: Plans = UNDECLARED) -> None:
        self.plans = plans
        self._known = columns(plans.columns)
        self._splits: dict[tuple[Any, ...], _Split] = {}
        self._line_shapes: dict[tuple[str, ...], _LineShape | None] = {}
        self._series: dict[tuple[Any, ...], _Series | None] = {}
        self._last_key: list[Any] = []
        self._last_shape: _LineShape | None = None

    def pack(self, row: Row) -> FragmentRow:
        """Return a row, whole, however large it is."""
        series = _series_of(row.type, row.dimensions)
        values = {name: measure.value for name, measure in row.measures.items() if name not in FIXED}
        values = dict(sorted((values | dict(zip(series.names, series.values, strict=True))).items()))
        named = {name: value for name, value in values.items() if name in self._known}
        rest = {name: value for name, value in values.items() if name not in self._known}
        fields = orjson.dumps(rest) if rest else b""
        return FragmentRow(
            row.time,
            (row.time, row.id, digest(named, fields), series.common),
            row.version,
            tuple(named),
            tuple(named.values()),
            fields.decode() or None,
            _ROW_BYTES + 2 * len(orjson.dumps([*named.values()]) + fields),
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
            split = shape.splits.get(series.names) or self._find_split(shape, series.names)
            named, rest = split.values(values, series.values)
            fields = orjson.dumps(rest) if rest else b""
            text = orjson.dumps(named) + fields
            if (
                shape.has_nested
                and b"+" in text  # to look into the values takes longer, and into the message
                and _has_exponent((*named, *rest.values()))
                and has_long_number(message)
            ):
                return None
            made: FragmentRow = _new(
                FragmentRow,
                (
                    time,
                    (time, line["_id"], split.digest_of(text), series.common),
                    self.plans.version,
                    split.names,
                    named,
                    fields.decode() or None,
                    _ROW_BYTES + 2 * len(text),
                ),
            )
            return made
        except (LookupError, TypeError, OverflowError, UnmappableError):
            return None

    def avoid(self, kind: RowKind) -> None:
        """Do nothing: the lake refuses no kind of row."""

    def _find_split(self, shape: _LineShape, others: tuple[str, ...]) -> _Split:
        key = (shape.items, shape.defaults, others)
        found = self._splits.get(key) or remember(self._splits, key, _make_split(*key, self._known))
        shape.splits[others] = found
        return found

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
        """Return a line's dimensions, or None if its row has more about them."""
        values = shape.dimensions(line)
        key = (shape.dimensional, source, values)
        try:
            return self._series[key]
        except KeyError:
            if float in map(type, values):
                return None  # it may have been a whole number that is too long for orjson
            dimensions = plain_dimensions(line, source, shape.plan)
        found = None if dimensions is None else _series_of(shape.type, dimensions)
        # Numbers of different types are the same key.
        if all(value is None or value.__class__ is str for value in values):
            remember(self._series, key, found)
        return found


def _make_split(
    items: Iterable[tuple[str, str]],
    defaults: Iterable[tuple[str, Value]],
    others: Iterable[str],
    known: Container[str],
) -> _Split:
    """Return how the values of lines are divided.

    It is compiled for the columns: calls that do the same for any columns take three times as long. The code
    has places only; names and defaults, which others wrote, are values that it is given.

    Args:
        items: What is done with each of a line's values, and its column.
        defaults: Columns that the line has no field for, and their values.
        others: The columns of the values of the line's series.
        known: The columns that fragments have.
    """
    code = {column: _CODE[group].format(f"line[{place}]") for place, (group, column) in enumerate(items)}
    code |= {column: f"default_{place}" for place, (column, _) in enumerate(defaults)}
    code |= {column: f"series[{place}]" for place, column in enumerate(others)}
    names = tuple(column for column in sorted(code) if column in known)
    unknown = [column for column in sorted(code) if column not in known]
    named = "".join(f"{code[column]}, " for column in names)
    rest = ", ".join(f"name_{place}: {code[column]}" for place, column in enumerate(unknown))
    given = {f"default_{place}": value for place, (_, value) in enumerate(defaults)}
    given |= {f"name_{place}": column for place, column in enumerate(unknown)}
    divide = f"lambda line, series: (({named}), {{{rest}}})"
    values = eval(divide, {"dumps": orjson.dumps} | given)  # noqa: S307 - nothing that others wrote
    return _Split(names, digester(names), values)


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


# What is done with values: they are kept, kept if they are not too large, made floats that are not negative
# zero, or written as JSON.
_CODE: Final = {"text": "{}", "whole": "{}", "number": "{} + 0.0", "nested": "dumps({}).decode()"}
_GROUPS: Final[Mapping[tuple[type, Type], str]] = {
    (str, "VARCHAR"): "text",
    (bool, "BOOLEAN"): "text",
    (int, "DOUBLE"): "number",
    (float, "DOUBLE"): "number",
    (int, "BIGINT"): "whole",
    (dict, "VARCHAR"): "nested",
    (list, "VARCHAR"): "nested",
}
_new: Any = tuple.__new__  # half of the time that calling the class takes, for every row


def _series_of(type_: str, dimensions: Mapping[str, str]) -> _Series:
    others = {name: value for name, value in dimensions.items() if name not in _COMMON}
    common = (type_, *[dimensions.get(name, "") for name in _COMMON])
    return _Series(common, tuple(others), tuple(others.values()))


def _getter(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets the values of some keys, as a tuple however many they are."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple(values[key] for key in keys)
