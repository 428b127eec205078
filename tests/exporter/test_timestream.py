"""The adapter to Timestream's queries."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from exporter.query import Column, Days
from exporter.timestream import Timestream

DAYS = Days(date(2025, 11, 20), date(2025, 11, 21))
INFO = [
    {"Name": "time", "Type": {"ScalarType": "TIMESTAMP"}},
    {"Name": "measure_name", "Type": {"ScalarType": "VARCHAR"}},
    {"Name": "status", "Type": {"ScalarType": "DOUBLE"}},
]


class Pages:
    """A client of timestream-query that answers with pages, the first of which is empty."""

    def __init__(self, *pages: list[list[str | None]]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.read = 0

    def get_paginator(self, operation: str) -> "Pages":
        assert operation == "query"
        return self

    def paginate(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(arguments["QueryString"])
        for page in self.pages:
            self.read += 1
            data = [
                [{"NullValue": True} if value is None else {"ScalarValue": value} for value in row]
                for row in page
            ]
            yield {"Rows": [{"Data": row} for row in data], "ColumnInfo": INFO}


def test_all_pages_are_followed_also_when_the_first_is_empty() -> None:
    client = Pages([], [["t1", "api_request", "200.0"]], [], [["t2", "api_request", None]])

    answer = Timestream(client, "db", "table").rows(DAYS)

    assert answer.columns == (
        Column("time", "TIMESTAMP"),
        Column("_type", "VARCHAR"),
        Column("status", "DOUBLE"),
    )
    assert list(answer.rows) == [("t1", "api_request", "200"), ("t2", "api_request", None)]


@pytest.mark.parametrize(
    ("stored", "said"),
    [("200.0", "200"), ("0.25", "0.25"), ("-3.0", "-3"), ("1.0E10", "1.0E10"), ("0.0", "0")],
)
def test_a_whole_number_is_said_without_its_decimals(stored: str, said: str) -> None:
    client = Pages([["1.0", "2.0", stored]])

    assert list(Timestream(client, "db", "table").rows(DAYS).rows) == [("1.0", "2.0", said)]


def test_pages_are_read_as_rows_are_asked_for() -> None:
    client = Pages([["t1", "x", "1"]], [["t2", "x", "2"]], [["t3", "x", "3"]])

    answer = Timestream(client, "db", "table").rows(DAYS)

    next(answer.rows)
    assert client.read == 1


def test_every_question_is_bounded_in_time_by_whole_days() -> None:
    client = Pages([["3", None, None]])

    assert Timestream(client, "db", 'odd"name').count(DAYS) == 3
    (sql,) = client.asked
    assert sql == (
        'SELECT count(*) FROM "db"."odd""name" '
        "WHERE time >= TIMESTAMP '2025-11-20 00:00:00.000000000' "
        "AND time < TIMESTAMP '2025-11-22 00:00:00.000000000'"
    )


def test_rows_come_in_an_order_that_does_not_change() -> None:
    client = Pages([])

    Timestream(client, "db", "table").rows(DAYS)

    assert client.asked[0].endswith(' ORDER BY time ASC, "_id" ASC')
