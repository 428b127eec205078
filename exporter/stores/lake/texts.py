"""Values of fragments and of Parquet parts as the asking port's text. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from consumers.rows.table import EXTRA
from exporter.store import Column, Type

PER_MILLISECOND = 1_000_000
# Numbers from here on, and those below a thousandth, have an exponent.
_LARGE, _SMALL = 1e7, 1e-3
_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_KINDS: Mapping[type, Type] = {bool: "boolean", int: "integer", float: "number", str: "text"}


def number_text(number: float) -> str:
    """Return a DOUBLE as every store answers it: as Java prints it, without a fraction of zero.

    https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/lang/Double.html#toString(double)
    """
    if number == 0:
        return "0"
    if _SMALL <= abs(number) < _LARGE:
        return repr(number).removesuffix(".0")
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    first, *rest = map(str, digits)
    power = int(exponent) + len(digits) - 1
    return f"{'-' if sign else ''}{first}.{''.join(rest) or '0'}E{power}"


def type_of(type_: pa.DataType) -> Type:
    """Return the port's name of a column's type."""
    if pa.types.is_timestamp(type_):
        return "timestamp"
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_):
        return "integer"
    return "number" if pa.types.is_floating(type_) else "text"


def texts(values: pa.Array) -> list[str | None]:
    """Return a column's values as text, in the forms of `exporter.store.Values`."""
    type_ = values.type
    if pa.types.is_timestamp(type_):
        return time_texts(pc.multiply(values.cast(pa.timestamp("ms")).cast(pa.int64()), PER_MILLISECOND))
    if pa.types.is_floating(type_):
        listed = _listed(values.cast(pa.string()))
        # Most numbers are printed alike by pyarrow, in a fifth of the time.
        size = pc.abs(values)
        is_small = pc.and_(pc.less(size, _SMALL), pc.not_equal(size, 0))
        for place in pc.indices_nonzero(pc.or_(is_small, pc.greater_equal(size, _LARGE))).to_pylist():
            listed[place] = number_text(values[place].as_py())
        return listed
    return _listed(values.cast(pa.string()))


def time_texts(nanoseconds: pa.Array) -> list[str | None]:
    """Return times in nanoseconds since 1970 as the port's text."""
    return _listed(nanoseconds.cast(pa.timestamp("ns")).cast(pa.string()))


def _listed(values: pa.Array) -> list[str | None]:
    listed: list[str | None] = values.to_pylist()
    return listed


def kind_of(value: Any) -> Type:
    """Return the type of the measure that a value in `fields` is."""
    return _KINDS[value.__class__]


def put_fields(
    fields: Sequence[str | None], columns: Sequence[Column], values: Sequence[list[str | None]]
) -> None:
    """Put the measures without their own column into the columns that are asked for.

    A value of another type than its column's goes into `_extra`, as one that a schema does not expect does.

    Args:
        fields: The JSON objects of rows; None for a row without such measures.
        columns: The columns.
        values: The rows' values as text, a list for each column.
    """
    place_of = {column.name: (column.type, place) for column, place in zip(columns, values, strict=True)}
    for names, rows, values_of in _alike(fields):
        for name, column in zip(names, zip(*values_of, strict=True), strict=True):
            if name not in place_of:
                continue
            type_, place = place_of[name]
            for kind, of_rows, of_kind in _by_kind(rows, column):
                if _KINDS[kind] == type_ or (kind is int and type_ == "number"):
                    _put(of_kind, kind, of_rows, place)
                elif EXTRA in place_of:
                    _put_extra(name, of_kind, of_rows, place_of[EXTRA][1])


def _alike(
    fields: Sequence[str | None],
) -> Iterator[tuple[tuple[str, ...], list[int], list[Collection[Any]]]]:
    """Yield the names that rows have in common, these rows, and their values."""
    alike: dict[tuple[str, ...], tuple[list[int], list[Collection[Any]]]] = {}
    for row, text in enumerate(fields):
        if text is not None:
            found = orjson.loads(text)
            rows, values = alike.get(names := (*found,)) or alike.setdefault(names, ([], []))
            rows.append(row)
            values.append(found.values())
    for names, (rows, values) in alike.items():
        yield names, rows, values


def _by_kind(
    rows: Sequence[int], column: Sequence[Any]
) -> Iterator[tuple[type, Sequence[int], Sequence[Any]]]:
    """Yield the classes of a column's values, each with its rows and values."""
    kinds = {*map(type, column)}
    for kind in kinds:
        if len(kinds) == 1:
            yield kind, rows, column
        else:
            found = [(row, value) for row, value in zip(rows, column, strict=True) if value.__class__ is kind]
            yield kind, [row for row, _ in found], [value for _, value in found]


def _put(column: Sequence[Any], kind: type, rows: Sequence[int], place: list[str | None]) -> None:
    """Put values of one class into their rows as text."""
    found = column if kind is str else texts(pa.array(column, _ARROW_TYPES[kind]))
    if len(rows) == len(place):
        place[:] = found
    else:
        for row, text in zip(rows, found, strict=True):
            place[row] = text


def _put_extra(name: str, column: Sequence[Any], rows: Sequence[int], place: list[str | None]) -> None:
    for row, value in zip(rows, column, strict=True):
        place[row] = orjson.dumps({**orjson.loads(place[row] or "{}"), name: value}).decode()
