"""Adapter: questions to Timestream, every page followed.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from consumers.table import ID
from exporter.query import TIME, TYPE, Answer, Column, Days, Values

# A call waits up to 60 seconds for its page.
READ_TIMEOUT = 70


class Timestream:
    """A Timestream table.

    Args:
        client: A boto3 client for timestream-query.
        database: The database's name.
        table: The table's name.
    """

    def __init__(self, client: Any, database: str, table: str) -> None:
        self._client = client
        self._from = f"{_quoted(database)}.{_quoted(table)}"

    def count(self, days: Days) -> int:
        """Return how many rows there are."""
        answer = self._ask("count(*)", days)
        return int(next(answer.rows)[0] or 0)

    def rows(self, days: Days) -> Answer:
        """Return the rows by time, then identity."""
        return self._ask("*", days, f" ORDER BY {TIME} ASC, {_quoted(ID)} ASC")

    def _ask(self, what: str, days: Days, order: str = "") -> Answer:
        # Timestream takes no parameters; names are quoted, days are dates, and the rest is ours.
        sql = f"SELECT {what} FROM {self._from} WHERE {_between(days)}{order}"  # noqa: S608
        # The first page may hold no rows and only a token: the paginator follows tokens, not rows.
        pages = self._client.get_paginator("query").paginate(QueryString=sql)
        first, *_ = list(itertools.islice(iterator := iter(pages), 1))
        columns = tuple(_column(info) for info in first["ColumnInfo"])
        numbers = tuple(place for place, column in enumerate(columns) if column.type == "DOUBLE")
        return Answer(columns, _rows(itertools.chain([first], iterator), numbers))


def _rows(pages: Iterator[dict[str, Any]], numbers: tuple[int, ...]) -> Iterator[Values]:
    for page in pages:
        for row in page["Rows"]:
            values = [datum.get("ScalarValue") for datum in row["Data"]]
            for place in numbers:
                # Timestream has one type of number and says 200.0; a person who counts reads 200.
                if (text := values[place]) is not None:
                    values[place] = text.removesuffix(".0")
            yield tuple(values)


def _column(info: dict[str, Any]) -> Column:
    name = info.get("Name", "")
    return Column(TYPE if name == "measure_name" else name, info["Type"].get("ScalarType", "VARCHAR"))


def _between(days: Days) -> str:
    """Return the condition on time; a query without one reads, and costs, the whole table."""
    return f"{TIME} >= {_midnight(days.first)} AND {TIME} < {_midnight(days.last + timedelta(days=1))}"


def _midnight(day: date) -> str:
    return f"TIMESTAMP '{day.isoformat()} 00:00:00.000000000'"


def _quoted(name: str) -> str:
    """Return a name as SQL: the one place where a value becomes part of a query."""
    return '"' + name.replace('"', '""') + '"'
