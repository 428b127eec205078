"""The names of days that late rows touched."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rows import late_days


def test_a_key_names_its_day_its_batch_and_the_delivery() -> None:
    batch = "shardId-000000000000-4959033827149025660855969253836157"

    key = late_days.marker_key(date(2026, 1, 31), batch, "c6af9ac6-7b61-11e6-9a41-93e8deadbeef")

    assert key == (
        "late/2026-01-31/shardId-000000000000-4959033827149025660855969253836157"
        ".c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    )
    assert late_days.marker_day(key) == date(2026, 1, 31)


@pytest.mark.parametrize("key", ["records/2026-01-31/x", "late/2026-1-31/x", "late/2026-01-31", "late/x", ""])
def test_a_key_of_something_else_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(key))} is not a key such as late/2026-01-31/"):
        late_days.marker_day(key)


@given(st.lists(st.integers(0, 1_439), min_size=1))
def test_a_marker_names_minutes(minutes: list[int]) -> None:
    assert late_days.marker_minutes(late_days.marker_body(minutes)) == frozenset(minutes)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"minutes",
        b"[1]",
        b"{}",
        b'{"minutes": 1}',
        b'{"minutes": []}',
        b'{"minutes": [1.0]}',
        b'{"minutes": [true]}',
        b'{"minutes": ["1"]}',
        b'{"minutes": [-1]}',
        b'{"minutes": [5, 1440]}',
        b'{"format_version": 2, "minutes": [1]}',
        b"\xff",
    ],
)
def test_anything_else_names_none(body: bytes) -> None:
    assert late_days.marker_minutes(body) is None
