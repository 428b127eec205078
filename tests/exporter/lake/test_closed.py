"""Which days are read from parts."""

import json
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.documents import NewerDocumentError
from exporter.lake.closed import KEY, close_day, closed
from exporter.store import Days
from tests.twins import Bucket

FIRST = date(2025, 11, 20)


@given(st.lists(st.integers(0, 12)))
def test_the_closed_days_are_those_that_were_closed_and_no_two_ranges_touch(numbers: list[int]) -> None:
    bucket = Bucket()
    for number in numbers:
        close_day(bucket, FIRST + timedelta(days=number))

    ranges = closed(bucket).days

    assert [day for days in ranges for day in days] == [
        FIRST + timedelta(days=number) for number in sorted(set(numbers))
    ]
    assert all(before.last + timedelta(days=1) < after.first for before, after in pairwise(ranges))


def test_a_day_that_another_run_closes_at_the_same_time_stays_closed() -> None:
    class Contended(Bucket):
        other = Bucket()

        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if len(self) == 0:
                close_day(self.other, FIRST)
                self.update(self.other)
            return super().replace(key, body, tag)

    bucket = Contended()
    close_day(bucket, FIRST + timedelta(days=5))

    assert closed(bucket).days == (
        Days(FIRST, FIRST),
        Days(FIRST + timedelta(days=5), FIRST + timedelta(days=5)),
    )


def test_a_newer_document_is_refused() -> None:
    with pytest.raises(NewerDocumentError, match=r"closed\.json"):
        closed(Bucket({KEY: json.dumps({"format_version": 2, "days": []}).encode()}))
