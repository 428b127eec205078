"""Questions to the store."""

from datetime import date

import pytest

from exporter.query import Answer, Column, Days, arranged


def test_a_range_of_days_is_both_inclusive() -> None:
    days = Days(date(2024, 2, 28), date(2024, 3, 1))

    assert len(days) == 3
    assert [str(day) for day in days] == ["2024-02-28", "2024-02-29", "2024-03-01"]


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="the last day, 2024-01-01, is before the first, 2024-01-02"):
        Days(date(2024, 1, 2), date(2024, 1, 1))


def test_columns_come_in_the_lakes_order_whatever_the_stores() -> None:
    columns = ["zebra", "day", "client", "_type", "source", "ant", "year", "time", "month", "_id"]
    answer = Answer(tuple(Column(name, "VARCHAR") for name in columns), iter([tuple(columns)]))

    made = arranged(answer)

    expected = ("time", "_type", "_id", "source", "client", "ant", "zebra")
    assert tuple(column.name for column in made.columns) == expected
    assert list(made.rows) == [expected]
