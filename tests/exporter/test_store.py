"""Questions to the store."""

from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.store import FIRST, MINUTES, Column, Days, Span, extended, minute_of, slices, whole

DAY = date(2025, 11, 20)


def test_a_range_of_days_is_both_inclusive() -> None:
    days = Days(date(2024, 2, 28), date(2024, 3, 1))

    assert len(days) == 3
    assert [str(day) for day in days] == ["2024-02-28", "2024-02-29", "2024-03-01"]


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="the last day, 2024-01-01, is before the first, 2024-01-02"):
        Days(date(2024, 1, 2), date(2024, 1, 1))


def test_new_columns_come_last_by_name_and_the_first_never_move() -> None:
    found = [Column(name, "number") for name in ["zebra", "day", "client", "_type", "ant", "year", "month"]]

    first = extended((), found)
    second = extended(first, [*found, Column("bee", "text")])

    assert [column.name for column in first] == [*FIRST, "ant", "zebra"]
    assert second == (*first, Column("bee", "text"))


def test_where_whole_records_are_kept_their_other_fields_have_a_column() -> None:
    assert [column.name for column in extended((), [Column("_overflow", "text")])] == [
        *FIRST,
        "_extra",
        "_overflow",
    ]


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, MINUTES - 1), st.integers(1, 500), max_size=60),
    st.integers(1, 1_000),
)
def test_a_days_slices_are_the_whole_day_and_none_has_more_rows_than_it_may(
    tally: dict[int, int], limit: int
) -> None:
    made = list(slices(DAY, tally, limit))

    assert (made[0].start, made[-1].end) == (whole(DAY).start, whole(DAY).end)
    assert all(before.end == after.start for before, after in pairwise(made))
    for each in made:
        counts = [
            count for minute, count in tally.items() if each.start <= minute_of(DAY, minute).start < each.end
        ]
        assert sum(counts) <= limit or len(counts) == 1


def test_a_day_ends_where_the_next_begins() -> None:
    assert whole(date(2024, 2, 28)) == Span("2024-02-28 00:00:00.000000000", "2024-02-29 00:00:00.000000000")
