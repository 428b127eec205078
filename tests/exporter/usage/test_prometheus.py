"""Counters equal what was counted, never go back, and are read by Prometheus' own parsers."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from consumers.documents import NewerDocumentError
from exporter.usage import prometheus
from exporter.usage.prometheus import KEPT_DAYS, LIMITS_S, Counters, exposition
from exporter.usage.questions import DAY, HOUR
from exporter.usage.rollup import Completeness, Limits, RollUp, bounded
from tests.exporter.usage.usage_rows import START, TYPE, Row, rolled, row, traffic

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(counters: Counters, accept: str = OPENMETRICS) -> Samples:
    """Return the samples of a scrape."""
    body, content_type = exposition(counters, accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def counted(samples: Samples, name: str) -> float:
    """Return the sum of a metric over all labels."""
    return sum(value for (metric, _), value in samples.items() if metric == name)


@pytest.mark.parametrize("accept", [OPENMETRICS, "text/plain", ""])
def test_a_scrape_has_the_seeds_metrics_with_the_rows_counts(accept: str) -> None:
    rows = [
        row(START, "/pets", method="GET", status=200, duration_ms=0.9),
        row(START, "/pets", method="GET", status=200, duration_ms=4),
        row(START, "/pets", method="GET", status=500, duration_ms=70_000, error_type="KeyError"),
        row(START, None, method=None, status=None, duration_ms=None, timed_out=True),
    ]
    day = rolled(rows, START)
    counters = Counters(SINCE)
    counters.add(
        [RollUp(day.start, day.end, TYPE, day.end, day.usage, 1, Completeness(lost=2, quarantined=3))]
    )

    samples = scraped(counters, accept)

    pets = (("endpoint", "/pets"), ("method", "GET"))
    assert samples["api_requests_total", (*pets, ("status", "200"))] == 2
    assert samples["api_requests_total", (*pets, ("status", "500"))] == 1
    unknown = (("endpoint", "unknown"), ("method", "unknown"), ("status", "unanswered"))
    assert samples["api_requests_total", unknown] == 1
    assert samples["api_errors_total", (("endpoint", "/pets"), ("error_type", "KeyError"))] == 1
    limits = {
        float(dict(labels)["le"]): value
        for (name, labels), value in samples.items()
        if name == "api_request_duration_seconds_bucket"
    }
    assert limits == {0.001: 1, **dict.fromkeys(LIMITS_S[1:], 2), float("inf"): 3}
    assert samples["api_request_duration_seconds_count", pets] == 3
    assert samples["api_request_duration_seconds_sum", pets] == pytest.approx(70.0049)
    assert samples["tagline_lost_total", ()] == 2
    assert samples["tagline_quarantined_total", ()] == 3
    assert samples["tagline_usage_data_through_timestamp_seconds", ()] == (START + DAY).timestamp()
    assert not any("client" in dict(labels) for _, labels in samples)


def test_the_counters_are_the_rows_and_are_read_back() -> None:
    days = traffic(4, routes=30, clients=9, requests=300)
    counters = Counters(SINCE)
    for number, rows in enumerate(days):
        counters.add([rolled(rows, START + number * DAY)])
        counters = Counters.from_json(counters.to_json())

    samples = scraped(counters)

    assert counted(samples, "api_requests_total") == sum(map(len, days))
    assert counted(samples, "api_request_duration_seconds_count") == sum(map(len, days))
    assert counted(samples, "api_errors_total") == sum(1 for rows in days for each in rows if each[6])


REVISIONS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from(["/a", "/b", "/c", None]), max_size=8)), max_size=12
)


@settings(max_examples=40)
@given(REVISIONS)
def test_no_counter_goes_back_and_a_repetition_changes_none(
    revisions: list[tuple[int, list[str | None]]],
) -> None:
    counters = Counters(SINCE)
    scrapes = [scraped(counters)]
    for day, routes in revisions:
        start = START + day * DAY
        rows = [row(start, route, status=500 if route == "/b" else 200, error_type=route) for route in routes]
        counters.add([rolled(rows, start)])
        scrapes.append(scraped(counters))
        counters.add([rolled(rows, start)])
        counters = Counters.from_json(counters.to_json())
        assert scraped(counters) == scrapes[-1]

    for before, after in pairwise(scrapes):
        assert before.keys() <= after.keys()
        assert [series for series in before if after[series] < before[series]] == []


def test_hours_that_become_a_day_count_once() -> None:
    (rows,) = traffic(1, routes=5, clients=3, requests=200)
    hours = [
        rolled(
            [each for each in rows if str(each[0]).startswith(f"{START + hour * HOUR:%Y-%m-%d %H}")],
            START + hour * HOUR,
            1,
        )
        for hour in range(24)
    ]
    counters = Counters(SINCE)
    for until in (1, 9, 24):
        counters.add(hours[:until])
    by_hours = scraped(counters)

    counters.add([rolled(rows, START)])

    assert scraped(counters) == by_hours
    assert counted(by_hours, "api_requests_total") == len(rows)


def test_there_is_a_bounded_number_of_series_and_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MOST_ENDPOINTS", 3)
    monkeypatch.setattr(prometheus, "MOST_ERRORS", 2)
    rows: list[Row] = []
    counters = Counters(SINCE)
    for day in range(3):
        start = START + day * DAY
        today = [
            row(start, f"/{day}{number}", error_type=f"E{number}")
            for number in range(10)
            for _ in range(number)
        ]
        rows += today
        cut = rolled(today, start)
        counters.add(
            [RollUp(cut.start, cut.end, TYPE, cut.end, bounded(cut.usage, Limits(routes=5, errors=4)))]
        )

    samples = scraped(counters)

    endpoints = {dict(labels)["endpoint"] for (name, labels) in samples if name == "api_requests_total"}
    assert endpoints == {"/09", "/08", "/07", "other"}
    assert counted(samples, "api_requests_total") == counted(samples, "api_errors_total") == len(rows)


def test_days_that_are_long_over_are_kept_as_a_sum() -> None:
    counters = Counters(SINCE)
    for day in range(KEPT_DAYS + 10):
        start = START + day * DAY
        counters.add([rolled([row(start)], start)])

    assert counted(scraped(counters), "api_requests_total") == KEPT_DAYS + 10
    assert len(counters.days) == KEPT_DAYS + 1
    counters.add([rolled([row(START), row(START)], START)])
    assert counted(scraped(counters), "api_requests_total") == KEPT_DAYS + 10


def test_counters_of_another_format_are_refused() -> None:
    document = Counters(SINCE).to_json().replace(b'"format_version":1', b'"format_version":9')

    with pytest.raises(NewerDocumentError, match="the document of counters has format_version 9"):
        Counters.from_json(document)
