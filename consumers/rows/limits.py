"""The limits of a store: rows, columns and their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
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
