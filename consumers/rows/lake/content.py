"""Rows become a fragment: its name and its columns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final

import orjson

from consumers.rows.lake.fragments import (
    ALWAYS,
    DIGEST,
    FIELDS,
    HOUR_MS,
    NANOSECONDS,
    TIME,
    TYPE,
    VERSION,
    ColumnType,
    Fragment,
)
from consumers.rows.lake.mapping import FragmentRow
from consumers.rows.table import DIMENSIONS, ID, SOURCE, offsets

Columns = dict[str, tuple[ColumnType, Sequence[Any]]]
"""Columns by name, each with its type and its values, None for a missing one."""

# In the order of `FragmentRow.identity`.
_OWN, _SHARED = (TIME, ID, DIGEST), (TYPE, SOURCE, *DIMENSIONS)
# A column that is declared has values of one class.
_TYPES: Final[dict[type, ColumnType]] = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


def content(rows: Sequence[FragmentRow]) -> Columns:
    """Return the columns of a fragment: those that every fragment has, and others in which a row has a value.

    Args:
        rows: Different rows of one hour, sorted by their identities.
    """
    # Each row is looked at once: together they are too many for the processor's nearest cache.
    _, identities, versions, shapes, values, fields, _ = zip(*rows, strict=True)
    found: Columns = dict.fromkeys(ALWAYS, ("VARCHAR", ()))  # in their order
    *own, shared = zip(*identities, strict=True)
    for name, column in zip((*_OWN, *_SHARED), (*own, *zip(*shared, strict=True)), strict=True):
        found[name] = ALWAYS[name], column
    for name in DIMENSIONS:
        type_, texts = found[name]
        found[name] = type_, [text or None for text in texts]
    found[NANOSECONDS] = ALWAYS[NANOSECONDS], offsets(found[ID][1])
    found[VERSION] = ALWAYS[VERSION], versions
    names, arranged = _arranged(shapes, values)
    for name, column in zip(names, zip(*arranged, strict=True), strict=True):
        value = next(value for value in column if value is not None)
        found[name] = _TYPES[value.__class__], column
    if any(fields):
        found[FIELDS] = "VARCHAR", fields
    return found


def name_of(columns: Columns) -> Fragment:
    """Return the name of a fragment: the same for the same rows, whichever version of a library packs them.

    Args:
        columns: The fragment's content. What is not hashed follows from the rest; digests cover values.
    """
    hashed = orjson.dumps([[*columns], *[columns[name][1] for name in (*_OWN, *_SHARED, VERSION)]])
    times = columns[TIME][1]
    first, last = times[0], times[-1]
    return Fragment(
        first // HOUR_MS, first // 1000, last // 1000, len(times), blake2b(hashed, digest_size=16).hexdigest()
    )


def _arranged(
    shapes: Sequence[tuple[str, ...]], values: Sequence[tuple[Any, ...]]
) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the names of all columns that rows have values in, and each row's values in their order."""
    if shapes.count(shapes[0]) == len(shapes):
        return shapes[0], values
    different = set(shapes)
    names = tuple(sorted({name for shape in different for name in shape}))
    getters = {shape: _getter(shape, names) for shape in different}
    return names, [getters[shape]((*said, None)) for shape, said in zip(shapes, values, strict=True)]


def _getter(shape: Sequence[str], names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what arranges the values of a shape, with None behind them, in the order of all names."""
    places = {name: place for place, name in enumerate(shape)}
    wanted = [places.get(name, len(shape)) for name in names]
    if len(wanted) > 1:
        return itemgetter(*wanted)
    return lambda values: tuple(values[place] for place in wanted)
