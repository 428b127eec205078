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
_IDENTITY: Final = (TIME, ID, DIGEST, TYPE, SOURCE, *DIMENSIONS)
# A column that is declared has values of one class.
_TYPES: Final[dict[type, ColumnType]] = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


def name_of(rows: Sequence[FragmentRow]) -> Fragment:
    """Return the name of a fragment: the same for the same rows, whichever version of a library packs them.

    Args:
        rows: Different rows of one hour, sorted by their identities.
    """
    names = sorted({name for names in {row.names for row in rows} for name in names})
    versions = [row.version for row in rows]
    content = orjson.dumps([names, versions, *zip(*[row.identity for row in rows], strict=True)])
    first, last = rows[0].time, rows[-1].time
    return Fragment(
        first // HOUR_MS, first // 1000, last // 1000, len(rows), blake2b(content, digest_size=16).hexdigest()
    )


def content(rows: Sequence[FragmentRow]) -> Columns:
    """Return the columns of a fragment: those that every fragment has, and others in which a row has a value.

    Args:
        rows: As above.
    """
    found: Columns = dict.fromkeys(ALWAYS, ("VARCHAR", ()))  # in their order
    for name, values in zip(_IDENTITY, zip(*[row.identity for row in rows], strict=True), strict=True):
        found[name] = ALWAYS[name], values
    for name in DIMENSIONS:
        type_, texts = found[name]
        found[name] = type_, [text or None for text in texts]
    found[NANOSECONDS] = ALWAYS[NANOSECONDS], offsets(found[ID][1])
    found[VERSION] = ALWAYS[VERSION], [row.version for row in rows]
    names, arranged = _arranged(rows)
    for name, values in zip(names, zip(*arranged, strict=True), strict=True):
        value = next(value for value in values if value is not None)
        found[name] = _TYPES[value.__class__], values
    fields = [row.fields for row in rows]
    if any(fields):
        found[FIELDS] = "VARCHAR", fields
    return found


def _arranged(rows: Sequence[FragmentRow]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the names of all columns that rows have values in, and each row's values in their order."""
    shapes = {row.names for row in rows}
    if len(shapes) == 1:
        return rows[0].names, [row.values for row in rows]
    names = tuple(sorted({name for shape in shapes for name in shape}))
    getters = {shape: _getter(shape, names) for shape in shapes}
    return names, [getters[row.names]((*row.values, None)) for row in rows]


def _getter(shape: Sequence[str], names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what arranges the values of a shape, with None behind them, in the order of all names."""
    places = {name: place for place, name in enumerate(shape)}
    wanted = [places.get(name, len(shape)) for name in names]
    if len(wanted) > 1:
        return itemgetter(*wanted)
    return lambda values: tuple(values[place] for place in wanted)
