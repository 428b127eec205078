"""The SQL of the view in which each row is once: of exported days, and of the fragments of all others. Pure.

It names days, and not `lake/closed.json`: Athena leaves out partitions by constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from consumers.rows.lake.fragments import DIGEST, FIELDS, IDENTITY, VERSION
from exporter.lake.athena import PARTITION
from exporter.lake.closed import Closed
from exporter.store import TIME, Days

VIEW = "usage"
_COPIES = ("day", "hour", *IDENTITY)
# Types of the tables' columns, as SQL names them.
_SQL_TYPES = {"string": "varchar", "int": "integer"}
# A name that can stand in a JSON path between quotes.
_PATH_NAME = re.compile(r"[A-Za-z0-9_. -]+")


class ViewColumn(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its name.
        type: Its type in the catalog.
        field: Its name in the files, and in `fields`.
    """

    name: str
    type: str
    field: str


def sql_type(type_: str) -> str:
    """Return the name that SQL has for a type of the catalog."""
    return _SQL_TYPES.get(type_, type_)


def view_columns(records: Sequence[ViewColumn], fresh: Sequence[ViewColumn]) -> list[ViewColumn]:
    """Return the view's columns: the partition, those of exported days, and the fragments' others.

    Args:
        records: The columns of the table over exported days, without partitions; none if it does not exist.
        fresh: Those of the table over fragments.
    """
    known = {column.name for column in records}
    hidden = {DIGEST, VERSION, FIELDS, *known}
    partition = ViewColumn(PARTITION, "date", PARTITION)
    return [partition, *records, *(column for column in fresh if column.name not in hidden)]


def view_sql(
    records: str,
    fresh: str,
    columns: Mapping[str, Sequence[ViewColumn]],
    closed: Closed,
    unfinished: Iterable[date],
) -> str:
    """Return the view's text.

    Args:
        records: The name of the table over exported days.
        fresh: The name of the table over fragments.
        columns: The columns of each table that exists, by its name.
        closed: The days and hours that are read from parts.
        unfinished: Days that are over and whose export was asked for and is not done.
    """
    there = columns.get(records, ()), columns[fresh]
    wanted = view_columns(*there)
    if not there[0]:
        closed = Closed()  # their table is not there yet
    queries = [_of_fragments(fresh, there[1], wanted, closed, unfinished)]
    if closed != Closed():
        queries.insert(0, _of_parts(records, there[0], wanted, closed))
    return "\nUNION ALL\n".join(queries)


def _of_parts(table: str, there: Sequence[ViewColumn], wanted: Sequence[ViewColumn], closed: Closed) -> str:
    names = {PARTITION, *(column.name for column in there)}
    selected = [
        f'"{column.name}"'
        if column.name in names
        else f'cast(NULL AS {sql_type(column.type)}) AS "{column.name}"'
        for column in wanted
    ]
    days = [f'"{PARTITION}" BETWEEN {_day(each.first)} AND {_day(each.last)}' for each in closed.days]
    for day, hours in sorted(closed.hours.items()):
        end = datetime(day.year, day.month, day.day) + timedelta(hours=hours)  # noqa: DTZ001 - as the column
        days.append(f'("{PARTITION}" = {_day(day)} AND "{TIME}" < timestamp \'{end}\')')
    return f"SELECT {', '.join(selected)}\nFROM {table} WHERE {' OR '.join(days)}"


def _of_fragments(
    table: str,
    there: Sequence[ViewColumn],
    wanted: Sequence[ViewColumn],
    closed: Closed,
    unfinished: Iterable[date],
) -> str:
    types = {column.name: column.type for column in there}
    selected = ", ".join(_from_fragment(column, types) for column in wanted)
    copies = ", ".join(f'"{name}"' for name in _COPIES)
    # The newest version of each identity, and each of its digests once.
    numbered = (
        f'rank() OVER (PARTITION BY {copies} ORDER BY "{VERSION}" DESC) AS place, '
        f'row_number() OVER (PARTITION BY {copies}, "{VERSION}", "{DIGEST}" ORDER BY "{VERSION}") AS copy'
    )
    conditions = [f"({' OR '.join(days)})"] if (days := list(_open_days(closed.days, unfinished))) else []
    conditions += [
        f"NOT (day = {_day(day)} AND hour < {hours})" for day, hours in sorted(closed.hours.items())
    ]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return (
        f"SELECT {selected}\nFROM (SELECT *, {numbered} FROM {table}{where})\n"  # noqa: S608 - names of ours
        "WHERE place = 1 AND copy = 1"
    )


def _from_fragment(column: ViewColumn, types: Mapping[str, str]) -> str:
    """Return a column's value of a fragment: it is in `fields` if it was written before it had a column."""
    name, type_, field = column
    if name == PARTITION:
        return f'day AS "{name}"'
    values = []
    if own := types.get(name):
        values.append(f'"{name}"' if own == type_ else f'try_cast("{name}" AS {sql_type(type_)})')
    if not name.startswith("_") and name not in IDENTITY and _PATH_NAME.fullmatch(field):
        text = f"""json_extract_scalar("{FIELDS}", '$["{field}"]')"""
        values.append(text if type_ == "string" else f"try_cast({text} AS {sql_type(type_)})")
    if not values:
        return f'cast(NULL AS {sql_type(type_)}) AS "{name}"'
    return f'{f"coalesce({values[0]}, {values[1]})" if values[1:] else values[0]} AS "{name}"'


def _open_days(closed: Sequence[Days], unfinished: Iterable[date]) -> Iterator[str]:
    """Yield the conditions of days that are read from fragments: unfinished, or after all closed ones."""
    if not closed:
        return
    last = max(days.last for days in closed)
    yield f"day > {_day(last)}"
    earlier = {day for day in unfinished if day < last and not any(day in list(days) for days in closed)}
    if earlier:
        yield f"day IN ({', '.join(map(_day, sorted(earlier)))})"


def _day(day: date) -> str:
    return f"date '{day}'"
