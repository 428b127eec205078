"""The days that an event asks for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.asked_days import days_of

NOW = datetime(2025, 12, 1, 0, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "first", "last"),
    [
        ({"day": "2025-11-18"}, "2025-11-18", "2025-11-18"),
        ({"from": "2025-11-17", "to": "2025-11-18"}, "2025-11-17", "2025-11-18"),
        ({"time": "2025-11-20T00:15:00Z", "detail-type": "Scheduled Event"}, "2025-11-19", "2025-11-19"),
        ({"time": "2025-11-20T00:15:00+02:00"}, "2025-11-18", "2025-11-18"),
        ({}, "2025-11-30", "2025-11-30"),
    ],
)
def test_an_event_says_which_days(event: dict[str, Any], first: str, last: str) -> None:
    days = days_of(event, NOW)

    assert (str(days[0]), str(days[-1])) == (first, last)
    assert len(days) == (days[-1] - days[0]).days + 1


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"day": "yesterday"}, "day is 'yesterday', not a date"),
        ({"day": 7}, "day is 7, not a date"),
        ({"from": "2025-11-18"}, "to is None, not a date"),
        ({"to": "2025-11-18"}, "from is None, not a date"),
        (
            {"from": "2025-11-18", "to": "2025-11-17"},
            "day, 2025-11-17, is before the first, 2025-11-18",
        ),
        ({"day": "2025-12-02"}, "day is 2025-12-02, which is after today, 2025-12-01 in UTC"),
        ({"from": "2025-11-18", "to": "2052-11-19"}, "to is 2052-11-19, which is after today"),
    ],
)
def test_an_event_that_names_no_days_is_refused(event: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        days_of(event, datetime(2025, 12, 1, tzinfo=UTC))
