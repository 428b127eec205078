"""Fragments: the Parquet files that the lake store consists of. Names, columns, and which rows count. Pure.

A batch writes one fragment for each hour of its rows' times, and no fragment is ever changed. A row may be in
several: batches are redelivered, cut elsewhere and replayed. Readers drop the copies: of the rows with the
same values in `IDENTITY`, those of the highest `VERSION` count, each `DIGEST` once. All copies of a row have
its time, so they are in one hour's folder. docs/reference/lake-store.md explains why each counts once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from consumers.rows.table import DIMENSIONS, EMPTY, EXTRA, ID, SAID, SOURCE, TRUNC, Type

PREFIX: Final = "store/"
HOUR_MS: Final = 3_600_000

ColumnType = Literal[Type, "INTEGER", "TIMESTAMP"]
"""A column's type: those of the table, whole numbers of 32 bits, and UTC with milliseconds."""

TIME, NANOSECONDS, TYPE, DIGEST, VERSION = "time", "_time_ns", "_type", "_digest", "_v"
# The values without a column, as one JSON object: a whole number is a BIGINT, a number with a fraction or
# an exponent a DOUBLE; objects and lists are texts that hold JSON, as in the table.
FIELDS: Final = "fields"
# `_time_ns` is the row's time below the millisecond, which `table.offset` derives from its identity.
IDENTITY: Final = (TIME, NANOSECONDS, ID, TYPE, SOURCE, *DIMENSIONS)
# These columns are in every fragment. The others are left out of fragments in which they have no value.
ALWAYS: Final[Mapping[str, ColumnType]] = {
    TIME: "TIMESTAMP",
    NANOSECONDS: "INTEGER",
    **dict.fromkeys((ID, TYPE, SOURCE, *DIMENSIONS), "VARCHAR"),
    DIGEST: "BIGINT",
    VERSION: "INTEGER",
}
# What the SQL over the lake takes as the name of a column; it ignores capitals. The source is in
# docs/reference/lake-store.md.
_NAME = re.compile(r"[a-z0-9_]{1,255}")
_FOLDERS = ("day", "hour")  # partition columns: no column can have their names

_KEY = re.compile(
    rf"{PREFIX}day=(\d{{4}}-\d\d-\d\d)/hour=(\d\d)/(\d+)-(\d+)-(\d+)-([0-9a-f]{{32}})\.parquet", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Fragment:
    """A fragment, as its key describes it.

    Attributes:
        hour: The hour of all of its rows, in hours since 1970.
        first: The earliest row's time in whole seconds since 1970.
        last: The latest row's.
        rows: How many it has.
        hash: 32 hexadecimal digits that follow from its rows and columns: the same rows have the same key.
    """

    hour: int
    first: int
    last: int
    rows: int
    hash: str

    @property
    def key(self) -> str:
        """The key of its object."""
        return f"{hour_folder(self.hour)}{self.first}-{self.last}-{self.rows}-{self.hash}.parquet"


def parse_fragment(key: str) -> Fragment:
    """Return the fragment that a key names.

    Raises:
        ValueError: If no fragment has such a key.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is not the key of a fragment")
    day, hour, first, last, rows, name = found.groups()
    fragment = Fragment(hours_of(date.fromisoformat(day))[int(hour)], int(first), int(last), int(rows), name)
    if fragment.key != key or not fragment.hour == fragment.first // 3_600 == fragment.last // 3_600:
        raise ValueError(f"{key!r} is not the key of a fragment: its seconds are not of its hour")
    return fragment


def day_folder(day: date) -> str:
    """Return what the keys of a day's fragments begin with."""
    return f"{PREFIX}day={day.isoformat()}/"


def hour_folder(hour: int) -> str:
    """Return what the keys of an hour's fragments begin with.

    Args:
        hour: Hours since 1970.
    """
    start = _EPOCH + timedelta(hours=hour)
    return f"{day_folder(start.date())}hour={start.hour:02}/"


def hours_of(day: date) -> range:
    """Return a day's hours, in hours since 1970."""
    first = (day - _EPOCH.date()).days * 24
    return range(first, first + 24)


def columns(declared: Mapping[str, Type]) -> dict[str, ColumnType]:
    """Return the columns that fragments can have, in their order.

    A declared column whose name SQL does not take, or differs from another only in capitals, is left out:
    its values are in `fields`, as undeclared ones are. Readers look there for every column, also because a
    column may have been declared after a fragment was written.

    Args:
        declared: Names and types of the columns that schemas declare.
    """
    found: dict[str, ColumnType] = {**ALWAYS, **dict.fromkeys((TRUNC, EXTRA, EMPTY, SAID), "VARCHAR")}
    taken = {*found, *_FOLDERS, FIELDS}
    for name in sorted(declared):
        lower = name.lower()
        if lower not in taken and _NAME.fullmatch(lower):
            taken.add(lower)
            found[name] = declared[name]
    return {**found, FIELDS: "VARCHAR"}
