"""The limits of a store: rows, columns and their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Limits(NamedTuple):
    """What a store's table can hold.

    Attributes:
        name_bytes: Bytes of the name of a column or of a type of record.
        dimension_name_bytes: Bytes of the name of a dimension.
        measures: Measures of one row.
        table_measures: Measures of the table.
        table_dimensions: Dimensions of the table.
        first_day: The earliest day that rows can be of, since 1970.
        last_day: The latest one.
        series_bytes: Bytes of all of a row's dimensions, names and values.
        names: Names that no column can have.
        prefixes: What no column's name can begin with.
    """

    name_bytes: int
    dimension_name_bytes: int
    measures: int
    table_measures: int
    table_dimensions: int
    first_day: int
    last_day: int
    series_bytes: int
    names: frozenset[str]
    prefixes: tuple[str, ...]


def strictest(stores: Sequence[Limits]) -> Limits:
    """Return the limits of what fits into each of some stores."""
    return Limits(
        name_bytes=min(each.name_bytes for each in stores),
        dimension_name_bytes=min(each.dimension_name_bytes for each in stores),
        measures=min(each.measures for each in stores),
        table_measures=min(each.table_measures for each in stores),
        table_dimensions=min(each.table_dimensions for each in stores),
        first_day=max(each.first_day for each in stores),
        last_day=min(each.last_day for each in stores),
        series_bytes=min(each.series_bytes for each in stores),
        names=frozenset[str]().union(*[each.names for each in stores]),
        prefixes=tuple(sorted({prefix for each in stores for prefix in each.prefixes})),
    )
