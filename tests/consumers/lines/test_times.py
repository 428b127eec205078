"""The times that lines carry are read, or kept and counted."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record

from consumers.lines.batch import tagged_lines
from consumers.lines.extract import extract
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.lines.times import milliseconds
from tests.builders import GROUP, LOGGED, data, envelope, kinesis_event

TAG = "usage_record"
TIME = 1_763_632_800_123  # 2025-11-20T10:00:00.123Z


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("2025-11-20T10:00:00.123Z", TIME),
        ("2025-11-20T11:00:00.123456789+01:00", TIME),
        ("2025-11-20 10:00:00,123+0000", TIME),
        (1_763_632_800, TIME - 123),
        (1_763_632_800.123, TIME),
        (1_763_632_800_123, TIME),
        (1_763_632_800_123.75, TIME + 1),
        (1_763_632_800_123_456, TIME),
        (1_763_632_800_123_456_789, TIME),
        ("1763632800", TIME - 123),
        ("1763632800.123", TIME),
        ("1763632800123", TIME),
        ("1763632800123456789", TIME),
        ("20/Nov/2025:10:00:00 +0000", TIME - 123),
        ("[20/Nov/2025:05:00:00 -0500]", TIME - 123),
        (0, 0),
        (-1.5, -1_500),
    ],
)
def test_a_time_is_read_in_its_notation(written: Any, time: int) -> None:
    assert milliseconds(written) == time


UNREAD = [
    *(
        "yesterday",
        "",
        "20/Nov/2025:10:00:00",
        "31/Feb/2025:10:00:00 +0000",
        "20/Nov/2025:10:00:00 +9900",
        "12",
    ),
    *(True, float("nan"), float("inf"), 10**20, [], {}),
]


@pytest.mark.parametrize("written", UNREAD)
def test_what_is_not_a_time_is_not_read(written: Any) -> None:
    assert milliseconds(written) is None


@given(st.integers(100_000_000, 9_000_000_000), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_every_unit_gives_the_same_time(second: int, unit: int) -> None:
    assert milliseconds(second * unit) == second * 1_000
    assert milliseconds(float(second)) == second * 1_000
    zone = timezone(timedelta(hours=2))
    assert (
        milliseconds(datetime.fromtimestamp(second, zone).strftime("%d/%b/%Y:%H:%M:%S %z")) == second * 1_000
    )


@pytest.mark.parametrize("more", [{}, {"_id": "a"}, {"_aws": {"Timestamp": LOGGED - 5}}])
@pytest.mark.parametrize("written", [each for each in UNREAD if not isinstance(each, float)])
def test_a_time_that_cannot_be_read_is_kept_and_counted(written: Any, more: dict[str, Any]) -> None:
    message = json.dumps({"_tag": TAG, "timestamp": written, "route": "/a", **more})
    ledger = Ledger(kinesis_event(data(envelope(message)))["Records"])

    (line,) = tagged_lines(ledger, TAG, "")

    assert line.record.timestamp == (LOGGED - 5 if "_aws" in more else LOGGED)
    kept = written if isinstance(written, str) else json.dumps(written)
    assert line.record.fields == {"route": "/a", "timestamp": kept}
    assert line.unread_time


def test_the_emitters_own_line_with_another_time_is_read_alike() -> None:
    rest = '"level":"INFO","_type":"t","_id":"a","_src":"s","_seq":1,"b":2}'

    def read(written: str) -> Record | Any:
        return extract(
            LogEvent("e1", LOGGED, f'{{"_tag":"usage_record","timestamp":{written},{rest}', GROUP, "s", "1"),
            TAG,
        )

    assert read("1763632800.123").timestamp == TIME
    assert (read('"soon"').timestamp, read('"soon"').fields) == (LOGGED, {"b": 2, "timestamp": "soon"})
    assert (read("null").timestamp, read("null").fields) == (LOGGED, {"b": 2})


def test_a_users_field_of_that_name_is_not_replaced() -> None:
    message = '{"_tag":"usage_record","timestamp":"soon","timestamp_":"mine"}'

    record = extract(LogEvent("e1", LOGGED, message, GROUP, "s", "1"), TAG)

    assert isinstance(record, Record)
    assert record.fields == {"timestamp": "mine"}
