"""Questions to the store."""

from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.store import (
    FIRST,
    MINUTES,
    Column,
    Days,
    Span,
    extended,
    minute_of,
    minute_ranges,
    minutes_of,
    slices,
    whole,
)

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


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, MINUTES - 1), st.integers(1, 500), max_size=60),
    st.sets(st.integers(0, MINUTES - 1), max_size=60),
    st.integers(1, 1_000),
)
def test_wanted_minutes_with_rows_are_in_ranges_no_more_than_the_slices_of_a_day(
    tally: dict[int, int], wanted: set[int], limit: int
) -> None:
    made = minute_ranges(wanted, tally, limit)

    there = {minute for each in made for minute in each}
    assert there >= wanted & tally.keys()
    assert all(before.stop < after.start for before, after in pairwise(made))
    assert all({each.start, each.stop - 1} <= wanted & tally.keys() for each in made)
    assert len(made) <= len(list(slices(DAY, tally, limit)))
    for each in made:
        spans, whole_span = list(slices(DAY, tally, limit, each)), minutes_of(DAY, each)
        assert (spans[0].start, spans[-1].end) == (whole_span.start, whole_span.end)
        assert all(before.end == after.start for before, after in pairwise(spans))


@pytest.mark.parametrize(
    ("limit", "made"),
    [
        (100, [range(1, 2), range(4, 6), range(9, 10)]),
        (398, [range(1, 2), range(4, 6), range(9, 10)]),
        (399, [range(1, 6), range(9, 10)]),
        (500, [range(1, 6), range(9, 10)]),  # three minutes with 210 rows before, three with 300 after
        (1_000, [range(1, 10)]),
    ],
)
def test_the_ranges_with_the_fewest_rows_between_them_are_joined(limit: int, made: list[range]) -> None:
    tally = {1: 70, 2: 70, 3: 140, 4: 70, 5: 70, 6: 100, 7: 100, 8: 100, 9: 77}

    assert minute_ranges({1, 4, 5, 9, 12}, tally, limit) == made


def test_a_day_ends_where_the_next_begins() -> None:
    assert whole(date(2024, 2, 28)) == Span("2024-02-28 00:00:00.000000000", "2024-02-29 00:00:00.000000000")
