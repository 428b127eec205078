"""Numbers and times are written short, with a unit, and never as something that they are not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.usage import texts


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),  # noqa: RUF001 - what the page shows
        (0, "0 %"),
        (1, "100 %"),
        (0.032, "3.20 %"),
        (0.00001, "<0.01 %"),
        (0.999999, "99.99 %"),
        (0.5, "50.00 %"),
    ],
)
def test_all_and_nothing_look_like_no_other_share(share: float | None, text: str) -> None:
    assert texts.percent(share) == text


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_only_all_is_written_as_all_and_only_nothing_as_nothing(whole: int, part: int) -> None:
    share = min(part, whole) / whole

    for digits in (1, 2):
        text = texts.percent(share, digits)
        assert (text == "0 %") == (share == 0)
        assert (text == "100 %") == (share == 1)


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (None, "–"),  # noqa: RUF001 - what the page shows
        (0.0312, "0.0312 ms"),
        (8.31, "8.31 ms"),
        (121.4, "121 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (1_250, "1.25 s"),
        (59_940, "59.9 s"),
        (59_999, "1.0 min"),
        (60_000, "1.0 min"),
        (900_000, "15.0 min"),
    ],
)
def test_durations_have_three_digits_and_a_unit(duration_ms: float | None, text: str) -> None:
    assert texts.milliseconds(duration_ms) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (203_023, "203 kB"),
        (999_999, "1 MB"),
        (2.75e9, "2.75 GB"),
        (1e20, "100,000 PB"),
    ],
)
def test_sizes_have_a_unit(number: float, text: str) -> None:
    assert texts.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (7, "7"), (999, "999"), (1_250, "1.2k"), (12_500, "12k"), (3_400_000, "3.4M")],
)
def test_counts_for_narrow_cells(number: int, text: str) -> None:
    assert texts.compact(number) == text


@pytest.mark.parametrize(
    ("relative", "text"),
    [(None, ""), (0, "± 0"), (0.004, "± 0"), (0.041, "▲ 4 %"), (-0.5, "▼ 50 %"), (12.5, "▲ 1,250 %")],
)
def test_changes_have_a_direction(relative: float | None, text: str) -> None:
    assert texts.change(relative) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(None, ""), (0.00001, "± 0"), (0.002, "▲ 0.20 pt"), (-0.125, "▼ 12.50 pt")]
)
def test_shares_change_in_points(difference: float | None, text: str) -> None:
    assert texts.points(difference) == text


def test_a_row_without_requests_before_is_new() -> None:
    assert texts.row_change({"previous_requests": 0, "requests": 3, "change": None}) == "new"
    assert texts.row_change({"previous_requests": None, "requests": 3, "change": None}) == ""
    assert texts.row_change({"previous_requests": 4, "requests": 3, "change": -0.25}) == "▼ 25 %"


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ((2026, 11, 28), (2026, 11, 29), "28 Nov 2026"),
        ((2026, 11, 22), (2026, 11, 29), "22 to 28 Nov 2026"),
        ((2026, 10, 31), (2026, 11, 30), "31 Oct to 29 Nov 2026"),
        ((2026, 12, 30), (2027, 1, 2), "30 Dec 2026 to 1 Jan 2027"),
        ((2026, 11, 28, 15), (2026, 11, 29, 15), "28 Nov 2026, 15:00 to 29 Nov 2026, 15:00"),
    ],
)
def test_a_span_ends_with_its_last_day(start: tuple[int, ...], end: tuple[int, ...], text: str) -> None:
    assert texts.span(datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC)) == text  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (7_300, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_an_age_is_in_its_largest_unit(seconds: int, text: str) -> None:
    assert texts.duration(timedelta(seconds=seconds)) == text


def test_statuses_have_the_names_that_http_gives_them() -> None:
    assert [texts.meaning(status) for status in (429, 599, 0, -1)] == ["Too Many Requests", "", "", ""]
