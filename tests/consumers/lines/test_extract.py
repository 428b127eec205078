"""A log event becomes a record, nothing of ours, or a rejection."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, write

from consumers.lines.extract import Rejected, extract, has_long_number
from consumers.lines.subscription import LogEvent
from tests.builders import GROUP, LOGGED

TAG = "usage_record"
RECORD = Record(id="r1", timestamp=LOGGED - 1, fields={"route": "/pets", "text": "two\nlines {"})
LINE = write(RECORD)


def event(message: str) -> LogEvent:
    return LogEvent("e1", LOGGED, message, GROUP, "stream", "123456789012")


@pytest.mark.parametrize(
    "message",
    [
        LINE,
        LINE + "\n",
        "  " + LINE,
        f"2025-11-20T10:00:00.000Z\t025f281a-7b61\tINFO\t{LINE}\n",
        f"[INFO]\t2025-11-20T10:00:00.000Z\tc6af9ac6\t{LINE}",
        json.dumps({"level": "INFO", "message": json.loads(LINE), "requestId": "c6af9ac6"}),
        json.dumps({"level": "INFO", "message": LINE, "requestId": "c6af9ac6"}),
    ],
)
def test_a_tagged_line_is_read_in_every_wrapping(message: str) -> None:
    assert extract(event(message), TAG) == RECORD


@pytest.mark.parametrize(
    "message",
    [
        'INFO usage_record {"a": 1}',
        'usage_record{"a": 1}\n',
        '2025-11-20T10:00:00.000Z\tc6af9ac6\tINFO\tusage_record {"a":1}',
        '{"_tag": "usage_record", "a": 1}',
    ],
)
def test_a_line_without_id_and_time_has_the_events(message: str) -> None:
    assert extract(event(message), TAG) == Record(id="e1", timestamp=LOGGED, fields={"a": 1})


def test_a_metrics_line_with_the_tag_has_the_metrics_time() -> None:
    line = {"_aws": {"Timestamp": LOGGED - 7, "CloudWatchMetrics": []}, "_tag": TAG, "latency": 3}

    record = extract(event(json.dumps(line)), TAG)

    assert record == Record(id="e1", timestamp=LOGGED - 7, fields={"latency": 3})


def test_a_loggers_line_with_the_tag_as_an_extra_key_is_a_record() -> None:
    line = {
        "level": "INFO",
        "location": "handler:7",
        "message": "done",
        "timestamp": "2025-11-20 10:00:00,123+0000",
        "service": "orders",
        "_tag": TAG,
    }

    record = extract(event(json.dumps(line)), TAG)

    assert isinstance(record, Record)
    assert record.timestamp == 1_763_632_800_123
    assert record.fields == {"location": "handler:7", "message": "done", "service": "orders"}


@pytest.mark.parametrize(
    "message",
    [
        "START RequestId: c6af9ac6 Version: $LATEST\n",
        '{"route": "/pets"}',
        'wrote 3 usage_records {"_tag": "other"}',
        "usage_record-total is 7",
        '{"note": "usage_record is the tag"}',
        'the usage_record of today: {"a": 1}',
        '{"message": "usage_record written"}',
        '{"message": {"tag": "usage_record"}}',
        '{"_tag": "usage_record_v2", "note": "usage_record"}',
    ],
)
def test_what_only_mentions_the_tag_is_not_ours(message: str) -> None:
    assert extract(event(message), TAG) is None


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("usage_record and no JSON", "carries the tag and no JSON object"),
        (LINE[:-20], "not JSON"),
        (LINE + LINE, "text after the object"),
        ('usage_record {"a": }', "not JSON"),
        ('{"_tag":"usage_record","a":' + "[" * 100_000, "deeper than 200 levels"),
        ('{"_tag":"usage_record","_id":7}', "_id is 7"),
        ('{"_tag":"usage_record","a":' + "9" * 5_000 + "}", "not JSON"),
    ],
)
def test_a_tagged_line_that_cannot_be_read_is_rejected_with_the_reason(message: str, detail: str) -> None:
    rejected = extract(event(message), TAG)

    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unparseable"
    assert detail in rejected.detail


@given(st.text() | st.text().map(lambda text: f"usage_record {{{text}") | st.text().map(lambda t: LINE + t))
def test_no_line_raises(message: str) -> None:
    extracted: Any = extract(event(message), TAG)

    assert extracted is None or isinstance(extracted, (Record, Rejected))


def test_a_key_that_only_begins_like_the_last_of_the_emitters_is_no_number() -> None:
    head = LINE[: LINE.index(',"route')] + ',"_src":"s1"'

    record = extract(event(head + ',"_seqx":1,"a":2}'), TAG)

    assert isinstance(record, Record)
    assert (record.src, record.seq, record.fields) == ("s1", None, {"a": 2})


@pytest.mark.parametrize(
    ("said", "is_long"),
    [
        ('{"_id":"12345678901234567890"}', False),
        ('{"a":12345678901234567890}', True),
        ('{"a": -12345678901234567890}', True),
        ('{"a":[1,12345678901234567890]}', True),
        ('{"a":[\n12345678901234567890]}', True),
        ('{"_id":"' + "1" * 60 + '","a":{"b":1234567890123456789}}', True),
        ('{"a":123456789012345678}', False),
    ],
)
def test_only_a_number_of_many_digits_is_long_and_not_an_identity(said: str, is_long: bool) -> None:
    assert has_long_number(said) == is_long
